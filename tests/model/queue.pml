/* A lock's queue: the places of its waiters. */

inline join_queue(c, key) {
  client[c].place = 1 + waits(1, key) + waits(2, key) + waits(3, key);
#ifdef LOCK_SERVER
  /* A lock that is free is offered at once. */
  if
  :: row[key].expires == 0 && may_grant -> hand_over(key)
  :: else
  fi
#endif
}

inline move_up(c, key, place_) {
  if
  :: waits(c, key) && client[c].place > place_ -> client[c].place--
  :: else
  fi
}

inline leave_queue(c, key) {
  client[c].silent = false;
  if
  :: client[c].place > 0 ->
     i = client[c].place;
     client[c].place = 0;
     move_up(1, key, i);
     move_up(2, key, i);
     move_up(3, key, i);
     i = 0
  :: else
  fi
}
