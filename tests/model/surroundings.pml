/* What happens to the clients and to the store: time passes, clocks step, servers end. */

inline pass_time(c) {
  if
  :: client[c].remaining > 0 -> client[c].remaining--
  :: else
  fi
}

inline wipe(key) {
  row[key].owner = NOBODY;
  row[key].expires = 0;
  row[key].token = 0;
  row[key].is_offered = false
}

inline lose_place(c) {
  client[c].place = 0;
  client[c].silent = false;
#ifdef PROMPT
  client[c].delay = 0
#endif
}

#define may_purge(key) \
  (row[key].expires == 0 && row[key].locked_by == NOBODY && row[key].token > 0 && may_lose_tokens)
#define may_be_taken(key) (available && row[key].expires > 0 && row[key].locked_by == NOBODY)

inline take_away(key) {
  if
  :: row[key].owner != STRANGER && holds(row[key].owner, key) -> client[row[key].owner].taken = true
  :: else
  fi;
#ifdef PROMPT
  client[row[key].owner].delay = 0; /* of a waiter, whose turn it was */
#endif
  hand_over(key)
}

inline end_grace() {
  if
  :: grace == 0
  :: grace > 1 -> grace--
  :: grace == 1 ->
     grace = 0;
     if :: row[0].expires == 0 -> hand_over(0) :: else fi;
     if :: row[1].expires == 0 -> hand_over(1) :: else fi
  fi
}

#ifdef PROMPT
/* Time does not pass while a client that runs has something to do. */
#ifdef DATABASE
#define is_up_for_taking(key) (row[key].expires == 0 && row[key].locked_by == NOBODY)
#else
#define is_up_for_taking(key) false
#endif
#define is_late(c) \
  (client[c].state == LOOKED || client[c].state == UNSURE || \
   (client[c].state == WAITING && is_running(c) && available && \
    (client[c].place == 0 || client[c].silent || is_offered_to(c, client[c].lock) || \
     is_up_for_taking(client[c].lock))))
#define may_pass (!is_late(1) && !is_late(2) && !is_late(3))

inline stop_heartbeat(c) {
  if
  :: client[c].stopped -> client[c].silent = true
  :: else
  fi
}

/* A waiter gets a free lock: at most the others delay it, by an offer each that they let end. */
#define is_unused(key) \
  ((row[key].expires == 0 || row[key].is_offered) && row[key].locked_by == NOBODY && may_grant)

inline count_delay(c) {
  if
  :: client[c].place > 0 && is_running(c) && is_unused(client[c].lock) ->
     client[c].delay++;
     assert(client[c].delay <= (CLIENTS - 1) * OFFER)
  :: else
  fi
}
#else
#define may_pass true
#endif

active proctype Surroundings() {
  atomic { run Client(); run Client(); run Client() }
  do
  :: atomic { if
  :: d_step { may_pass ->
#ifdef PROMPT
       count_delay(1); count_delay(2); count_delay(3);
#ifdef DATABASE
       stop_heartbeat(1); stop_heartbeat(2); stop_heartbeat(3);
#endif
#endif
       pass_time(1); pass_time(2); pass_time(3);
       age(0); age(1);
#ifdef LOCK_SERVER
       end_grace();
#endif
       STEP_OF_NOBODY(tick, 0)
     }
#ifdef CLOCK_STEPS
  :: d_step { age(0); age(1); STEP_OF_NOBODY(clock_step, 0) }
#endif
#ifdef MOVES_CLOCK_BACK
  /* The store's wall clock is set back, and catches up. */
  :: d_step { !is_set_back && may_be_set_back -> is_set_back = true; STEP_OF_NOBODY(set_back, 0) }
  :: d_step { is_set_back -> is_set_back = false; STEP_OF_NOBODY(catch_up, 0) }
#endif
#ifdef LOCK_SERVER
  :: d_step { !down && may_lose_tokens ->
       down = true;
       grace = 0;
       wipe(0); wipe(1);
       lose_place(1); lose_place(2); lose_place(3);
       STEP_OF_NOBODY(crash, 0)
     }
  :: d_step { down -> down = false; grace = GRACE; STEP_OF_NOBODY(restart, 0) }
#else
  /* A command deletes the row of a lock that nobody holds. */
  :: d_step { may_purge(0) -> wipe(0); STEP_OF_NOBODY(purge, 0) }
  :: d_step { may_purge(1) -> wipe(1); STEP_OF_NOBODY(purge, 1) }
#endif
#ifndef DROPPED
  /* An operator takes a lock from its holder. */
  :: d_step { may_be_taken(0) -> take_away(0); STEP_OF_NOBODY(force_release, 0) }
  :: d_step { may_be_taken(1) -> take_away(1); STEP_OF_NOBODY(force_release, 1) }
#endif
     fi; order_clients() }
  od
}
