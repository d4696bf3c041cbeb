/* Fencing tokens: max(previous + 1, the store's clock), computed in the grant. */

#define has_token(c, key, number) (holds(c, key) && client[c].token == number)
#define is_in_use(key, number) \
  (row[key].token == number || has_token(1, key, number) || has_token(2, key, number) || \
   has_token(3, key, number))

inline lower_token(c, key, number) {
  if
  :: holds(c, key) && client[c].token > number -> client[c].token--
  :: else
  fi
}

/* Only their order matters. So close the gaps between those in use: finitely many states remain. */
inline close_gaps(key) {
  gap = 1; /* 0: nothing is known */
  do
  :: gap >= highest[key] -> break
  :: gap < highest[key] && is_in_use(key, gap) -> gap++
  :: else ->
     highest[key]--;
     if
     :: row[key].token > gap -> row[key].token--
     :: else
     fi;
     lower_token(1, key, gap);
     lower_token(2, key, gap);
     lower_token(3, key, gap)
  od;
  gap = 0
}

/* The clock is ahead of all tokens, unless it was set back. */
inline give_token(key) {
  close_gaps(key);
  if
  :: is_set_back -> row[key].token++
  :: else -> row[key].token = highest[key] + 1
  fi;
  token_fell = (row[key].token <= highest[key]); /* what gives it says so, after its step */
  highest[key] = row[key].token
}
