/* The promise of django_distlock as a model: three clients, two locks, one store, and time.

   docs/explanation/model.md says what is modelled and what is left out. `python -m tests.model`
   checks it. It is compiled with one of

     -DDATABASE     the store is PostgreSQL: statements, row locks, the commit guard
     -DLOCK_SERVER  the store is the lock server: crashes, restarts, the grace period

   Each of these drops one premise of the promise, and so yields a counterexample:

     -DRELEASES_ANYBODYS  a release doesn't compare the owner
     -DCLOCK_STEPS        the store's clock may step forward
     -DNO_ROW_LOCK        the commit guard reads the lock's row, but doesn't lock it
     -DGRACE=1            the grace period is shorter than the longest ttl
     -DFORGETS_TOKENS     the store may lose a token while its clock is set back

   These choose which runs there are:

     -DDROPPED     few means, so that counterexamples are simple: no queue, no operator, no lost
                   reply; two clients have to hold a lock, or a token has to fall
     -DPROMPT      who runs acts at once, and there is one lock: then it waits for no waiter
     -DSEQUENTIAL  an attempt is one step: so a run can be repeated on a real store
     -DSYMMETRY    states are the same if only the clients' numbers differ */

#if !defined(PROMPT) && (!defined(SEQUENTIAL) || defined(FORGETS_TOKENS) || defined(LOCK_SERVER))
#define MOVES_CLOCK_BACK
#endif

#include "state.pml"
#include "tokens.pml"
#include "rows.pml"
#include "queue.pml"
#include "symmetry.pml"
#include "client.pml"
#include "surroundings.pml"
