/* Clients are alike, and only their order differs between many states: so keep them in one order.

   A run is then no longer one that can be repeated: clients change their numbers in it. */

#ifdef PROMPT
#define patience(c) client[c].stopped * 4 + client[c].delay
#else
#define patience(c) 0
#endif
#define rank(c) \
  (((((((client[c].state * 2 + client[c].lock) * 4 + client[c].remaining) * 8 + client[c].token) * 4 + \
     client[c].place) * 2 + client[c].silent) * 2 + client[c].taken) * 2 + \
  (row[client[c].lock].owner == c)) * 8 + patience(c)

#define SWAP(c, d, field) i = client[c].field; client[c].field = client[d].field; client[d].field = i

inline rename(key, c, d) {
  if
  :: row[key].owner == c -> row[key].owner = d
  :: row[key].owner == d -> row[key].owner = c
  :: else
  fi;
  if
  :: row[key].locked_by == c -> row[key].locked_by = d
  :: row[key].locked_by == d -> row[key].locked_by = c
  :: else
  fi
}

inline put_in_order(c, d) {
  if
  :: rank(c) < rank(d) ->
     rename(0, c, d);
     rename(1, c, d);
     SWAP(c, d, lock);
     SWAP(c, d, remaining);
     SWAP(c, d, token);
     SWAP(c, d, place);
     SWAP(c, d, silent);
     SWAP(c, d, taken);
     SWAP(c, d, state);
#ifdef PROMPT
     SWAP(c, d, stopped);
     SWAP(c, d, delay);
#endif
     i = 0
  :: else
  fi
}

#ifdef SYMMETRY
inline order_clients() {
  d_step { put_in_order(1, 2); put_in_order(2, 3); put_in_order(1, 2) }
}
#else
inline order_clients() { skip }
#endif
