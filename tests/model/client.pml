/* A client: the code between acquire_lock() and release(), with its renewal thread. */

/* Idle clients are alike, and so are unused locks: the first one stands for all. */
#define is_idle(c) (client[c].state == IDLE)
#define is_first_idle(c) (is_idle(c) && !(c > 1 && is_idle(1)) && !(c > 2 && is_idle(2)))
#define has_left(c, key) (is_idle(c) || client[c].lock != key)
#define is_untouched(key) \
  (row[key].owner == NOBODY && row[key].token == highest[key] && \
   has_left(1, key) && has_left(2, key) && has_left(3, key))

#define is_waiting (my.state == WAITING && is_running(_pid))

#define may_try(c, key) \
  (owns(c, key) || (!held_by_another(c, key) && !overtakes(c, key) && may_grant))

/* A client reclaims no lease that is over; its request may arrive when it is over. */
#ifdef SEQUENTIAL
#define tells_token (my.remaining > 0)
#else
#define tells_token true
#endif

/* A new acquisition has a new owner. So what the last one left behind is a stranger's. */
inline forget(c) {
  if
  :: row[client[c].lock].owner != c
  :: row[client[c].lock].owner == c && row[client[c].lock].expires > 0 ->
     row[client[c].lock].owner = STRANGER
  :: else -> row[client[c].lock].owner = NOBODY
  fi;
  client[c].state = IDLE;
  client[c].remaining = 0;
  client[c].token = 0;
  client[c].taken = false;
#ifdef PROMPT
  client[c].stopped = false;
  client[c].delay = 0;
#endif
  close_gaps(client[c].lock);
  client[c].lock = 0
}

/* The client counts its ttl from when it sent the request, which may be a tick ago. */
inline count_from_request() {
  if
  :: my.remaining = TTL
  :: my.remaining = TTL - 1
  fi
}

/* Exclusion: nobody else has an unexpired lease, or is committing a transaction under one. */
#ifdef DROPPED
#define is_in_the_way(c, key) claims(c, key)
#else
#define is_in_the_way(c, key) (claims(c, key) || is_committing(c, key))
#endif
#define is_alone(key) \
  ((me == 1 || !is_in_the_way(1, key)) && (me == 2 || !is_in_the_way(2, key)) && \
   (me == 3 || !is_in_the_way(3, key)))

/* The reply to a grant arrives, or gets lost. */
inline receive(action) {
  if
  :: my.state = HOLDING;
     my.token = my_row.token;
     count_from_request();
     STEP(action, granted)
#ifndef DROPPED
  :: my.state = UNSURE;
     STEP(action, unknown)
#endif
  fi;
  assert(!token_fell);
  assert(is_alone(mine))
}

/* ON CONFLICT DO UPDATE … WHERE: the row is locked, and then looked at again.

   Of a row that is locked by a transaction, the attempt is refused after 50 ms. */
inline write_row() {
  if
  :: my_row.locked_by == NOBODY && !held_by_another(me, mine) ->
     d_step { grant(me, mine) };
     receive(acquire)
  :: else ->
     d_step {
       STEP(acquire, refused);
       my.silent = false;
       if
       :: my.place > 0 -> my.state = WAITING
       :: else -> forget(me)
       fi
     }
  fi
}

inline attempt() {
#ifdef LOCK_SERVER
  d_step { grant(me, mine) };
  receive(acquire)
#else
#ifdef SEQUENTIAL
  write_row()
#else
  my.state = LOOKED;
  STEP(look, free)
#endif
#endif
}

proctype Client() {
  do
  :: atomic { if
  /* Acquire a lock, or join its queue. */
  :: atomic { is_first_idle(me) && available ->
       if
       :: true
#ifndef PROMPT
       :: !is_untouched(0) || !is_untouched(1) -> mine = 1
#endif
       fi;
       if
       :: may_try(me, mine) -> attempt()
#ifndef DROPPED
       :: d_step { my.state = WAITING; join_queue(me, mine); STEP(join, queued) }
#endif
#ifdef SEQUENTIAL
       :: !may_try(me, mine) -> d_step { STEP(acquire, refused); mine = 0 }
#endif
       fi
     }
  /* A waiter tries by itself. So does an attempt whose reply was lost, as the same owner. */
  :: atomic {
       (is_waiting || my.state == UNSURE) && available &&
       may_try(me, mine) && !(my.state == WAITING && is_offered_to(me, mine)) ->
       my.silent = false;
       attempt()
     }
#ifdef DATABASE
  :: atomic { my.state == LOOKED -> write_row() }
#endif
  :: atomic { is_waiting && available && is_offered_to(me, mine) ->
       d_step { grant(me, mine) };
       receive(take)
     }
  /* Any request shows that a waiter is there. */
  :: d_step { is_waiting && my.silent && available && !owns(me, mine) ->
       my.silent = false;
       STEP(speak, done)
     }
#ifdef DATABASE
  /* The thread that listens offers a free lock to the first waiter of all. */
  :: d_step { is_waiting && has_row(mine) && my_row.expires == 0 && my_row.locked_by == NOBODY &&
       (answers(1, mine) || answers(2, mine) || answers(3, mine)) ->
       STEP(offer_free, offered);
       hand_over(mine)
     }
  /* The process sends no heartbeat for a while. (See stop.) */
#ifndef PROMPT
  :: d_step { my.state == WAITING && !my.silent && !owns(me, mine) ->
       my.silent = true;
       STEP(fall_silent, done)
     }
#endif
#else
  /* After a restart of the server a waiter joins again. */
  :: d_step { is_waiting && my.place == 0 && available ->
       join_queue(me, mine);
       STEP(join, queued)
     }
#endif
#ifdef PROMPT
  :: d_step { is_waiting -> my.stopped = true; STEP(stop, done) }
#endif
  /* A waiter gives up, or its process was killed a while ago. Its offer goes to the next one. */
  :: d_step { my.state == WAITING && available ->
       leave_queue(me, mine);
       if
       :: is_offered_to(me, mine) -> hand_over(mine)
       :: else
       fi;
       STEP(leave, gone);
       forget(me)
     }

  /* Renew, or reclaim after a restart: the highest token wins. */
  :: atomic { my.state == HOLDING && available && my_row.locked_by == NOBODY ->
       if
       :: owns(me, mine)
#ifdef LOCK_SERVER
       :: !owns(me, mine) && grace > 0 && tells_token && my_row.token < my.token ->
          my_row.owner = me;
          my_row.token = my.token;
          my_row.is_offered = false
#endif
       :: else ->
          d_step {
#ifndef DROPPED
            assert(my.remaining == 0 || my.taken); /* no lease is lost before its end */
#endif
            STEP(renew, lost);
            forget(me)
          }
       fi;
       if
       :: my.state == HOLDING ->
          my_row.expires = TTL;
          if
          :: my.remaining > 0 -> count_from_request()
          :: else
          fi;
          STEP(renew, held)
       :: else
       fi
     }
  /* Release, maybe long after the lease has ended. */
  :: atomic { my.state == HOLDING && available && my_row.locked_by == NOBODY ->
       if
#ifdef RELEASES_ANYBODYS
       :: true ->
#else
       :: owns(me, mine) ->
#endif
          d_step { hand_over(mine); STEP(release, released) }
#ifdef LOCK_SERVER
       /* In the grace period: reclaim first. */
       :: !owns(me, mine) && grace > 0 && my.remaining > 0 && my_row.token < my.token ->
          d_step { my_row.token = my.token; hand_over(mine); STEP(release, released) }
#endif
#ifdef DATABASE
#ifndef SEQUENTIAL
       /* It misses a waiter that joins at this moment. */
       :: owns(me, mine) ->
          d_step { my_row.owner = NOBODY; my_row.expires = 0; STEP(release, released) }
#endif
#endif
#ifndef RELEASES_ANYBODYS
       :: else -> STEP(release, lost)
#endif
       fi;
       d_step { forget(me) }
     }
  /* An attempt without a reply ends with a release. */
  :: d_step { my.state == UNSURE && available && my_row.locked_by == NOBODY ->
       if
       :: owns(me, mine) -> hand_over(mine)
       :: else
       fi;
       STEP(release, unknown);
       leave_queue(me, mine);
       forget(me)
     }
  /* The process is killed, or its release gets lost. A transaction is rolled back. */
  :: d_step { my.state == UNSURE || my.state == HOLDING || my.state == COMMITTING ->
       if
       :: my_row.locked_by == me -> my_row.locked_by = NOBODY
       :: else
       fi;
       STEP(die, done);
       leave_queue(me, mine);
       forget(me)
     }

#ifdef DATABASE
  /* The commit guard: SELECT … FOR SHARE, the last statement before the commit. */
  :: d_step { my.state == HOLDING ->
       if
       :: my.remaining > 0 && owns(me, mine) ->
#ifndef NO_ROW_LOCK
          my_row.locked_by = me;
#endif
          my.state = COMMITTING;
          STEP(guard, held)
       :: else -> STEP(guard, lost); forget(me)
       fi
     }
  :: d_step { my.state == COMMITTING ->
       STEP(commit, committed);
#ifndef DROPPED
       assert(my.token == highest[mine]); /* nobody was granted or offered the lock since */
#endif
       assert(is_alone(mine));
       my_row.locked_by = NOBODY;
       my.state = HOLDING
     }
#endif
     fi; order_clients() }
  od
}
