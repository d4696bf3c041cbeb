/* How the store changes a lock's row: grants, hands over, expires. */

/* The first waiter that answers. The lock server asks the first one if none does. */
inline find_next_waiter(key) {
  best = NOBODY;
  i = 1;
  do
  :: i > CLIENTS -> break
  :: else ->
     if
     :: answers(i, key) && (best == NOBODY || client[i].place < client[best].place) -> best = i
     :: else
     fi;
     i++
  od;
#ifdef LOCK_SERVER
  if
  :: best == NOBODY ->
     i = 1;
     do
     :: i > CLIENTS -> break
     :: waits(i, key) && client[i].place == 1 -> best = i; break
     :: else -> i++
     od
  :: else
  fi;
#endif
  i = 0
}

/* End the lease; offer the lock to the next waiter, if there is one. */
inline hand_over(key) {
  row[key].owner = NOBODY;
  row[key].is_offered = false;
  row[key].expires = 0;
  if
  :: may_grant ->
     find_next_waiter(key);
     if
     :: best != NOBODY ->
        give_token(key);
        assert(!token_fell);
        row[key].owner = best;
        row[key].is_offered = true;
        row[key].expires = OFFER;
#ifdef DATABASE
        client[best].silent = true; /* its row is deleted from the queue */
#endif
        best = NOBODY
     :: else
     fi
  :: else
  fi
}

/* Grant the lock: a repeated attempt finds its own grant, with the stored token. */
inline grant(c, key) {
  if
  :: row[key].owner == c
  :: else ->
#ifdef LOCK_SERVER
     assert(!overtakes(c, key)); /* first come, first served */
#endif
     give_token(key)
  fi;
  row[key].owner = c;
  row[key].expires = TTL;
  row[key].is_offered = false;
  leave_queue(c, key)
}

/* Let a tick of the store's clock pass. */
inline age(key) {
  if
  :: row[key].expires == 0
  :: row[key].expires > 1 -> row[key].expires--
  :: row[key].expires == 1 ->
     row[key].expires = 0;
     /* A waiter that let an offer end is passed over, until it asks for something. */
     if
     :: row[key].is_offered && row[key].owner != STRANGER -> client[row[key].owner].silent = true
     :: else
     fi;
     row[key].is_offered = false;
#ifdef LOCK_SERVER
     hand_over(key)
#else
     /* The row stays as it is. Only an attempt that is repeated looks at its former owner. */
     if
     :: row[key].owner == STRANGER || client[row[key].owner].state != UNSURE ->
        row[key].owner = NOBODY
     :: else
     fi
#endif
  fi
}
