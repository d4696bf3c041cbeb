/* What a state is, and what is said of it. */

#define CLIENTS 3
#define NOBODY 0
#define STRANGER 4 /* an owner that no client remembers: its lease ends with its ttl */

/* Times are in ticks. */
#ifndef TTL
#define TTL 2
#endif
#define OFFER 1
#ifndef GRACE
#define GRACE TTL
#endif

mtype = { /* what a client does */
  IDLE,
  LOOKED, /* its attempt has read that the lock is free, but not yet written the row */
  UNSURE, /* the reply to its attempt was lost */
  WAITING, HOLDING,
  COMMITTING /* between the commit guard and the end of the commit */
}
mtype = { /* the steps */
  acquire, catch_up, clock_step, commit, crash, die, fall_silent, force_release, guard, join,
  leave, look, offer_free, purge, release, renew, restart, set_back, speak, stop, take, tick
}
mtype = { /* their outcomes */
  committed, done, free, gone, granted, held, lost, offered, queued, refused, released, unknown
}

typedef Row {
  byte owner;
  byte expires; /* ticks left; 0: it has expired, or is free */
  byte token; /* the last one, as far as the store remembers it */
  bool is_offered; /* its owner still waits, and has to take it */
  byte locked_by /* the client whose transaction has locked the row */
}

typedef Process {
  mtype state = IDLE;
  byte lock; /* the row that it is about */
  byte remaining; /* ticks until its lease ends, by its own clock */
  byte token;
  byte place; /* in the lock's queue, from 1 on; 0: in none */
  bool silent; /* it let an offer end, or sends no heartbeat: it is passed over */
  bool taken; /* an operator released its lock by force */
#ifdef PROMPT
  bool stopped; /* it waits, but does nothing any more */
  byte delay /* ticks for which it waited while the lock was free */
#endif
}

Row row[2];
Process client[CLIENTS + 2]; /* by owner; the first and the last are not used */
byte highest[2]; /* the highest token that was ever granted for the lock */
bool is_set_back; /* the store's wall clock is behind the tokens */
#ifdef LOCK_SERVER
bool down;
byte grace; /* ticks for which nothing is granted yet */
#endif
byte i, best, gap; /* used within a step only; 0 between steps */
bool token_fell; /* likewise: whether the last token was no higher than an earlier one */

/* The client that makes the step, and the row that it is about. */
#define me _pid
#define my client[_pid]
#define mine client[_pid].lock
#define my_row row[client[_pid].lock]

#define has_row(key) (row[key].token > 0)
#define owns(c, key) (row[key].owner == c && row[key].expires > 0)
#define is_offered_to(c, key) (owns(c, key) && row[key].is_offered)
#define held_by_another(c, key) (row[key].expires > 0 && row[key].owner != c)
#define holds(c, key) \
  (client[c].lock == key && (client[c].state == HOLDING || client[c].state == COMMITTING))
#define claims(c, key) (holds(c, key) && client[c].remaining > 0 && !client[c].taken)
#define is_committing(c, key) (client[c].lock == key && client[c].state == COMMITTING)
#ifdef PROMPT
#define is_running(c) (!client[c].stopped)
#else
#define is_running(c) true
#endif
#define waits(c, key) (client[c].lock == key && client[c].place > 0)
#define answers(c, key) (waits(c, key) && !client[c].silent)

/* Who waits before this client: before its place, or at all if it has none. */
#define is_ahead_of(c, other, key) \
  (answers(other, key) && (client[c].place == 0 || client[other].place < client[c].place))
#define overtakes(c, key) \
  (is_ahead_of(c, 1, key) || is_ahead_of(c, 2, key) || is_ahead_of(c, 3, key))

#ifdef LOCK_SERVER
#define available (!down)
#define may_grant (!down && grace == 0)
#else
#define available true
#define may_grant true
#endif

#ifdef FORGETS_TOKENS
#define may_lose_tokens true
#define may_be_set_back true
#else
#define may_lose_tokens (!is_set_back)
#define may_be_set_back (row[0].token == highest[0] && row[1].token == highest[1])
#endif

/* Each step prints a line for those that repeat the run: the client, what it does, the lock, the
   outcome, and in how many ticks its lease ends by its own clock. */
#define STEP(action, outcome) \
  printf("STEP %d %e %d %e %d\n", _pid, action, mine, outcome, my.remaining)
#define STEP_OF_NOBODY(action, key) printf("STEP 0 %e %d done 0\n", action, key)
