/* Moves the wall clock of a process, and no other clock of it: a library for LD_PRELOAD.
 *
 * A file has the microseconds to add, as an int64; they may change at any time. At first it is the
 * one that the environment names in DISTLOCK_WALL_CLOCK.
 *
 * libfaketime 0.9.10 is no help: its dlsym() allocates memory, which recurses under Redis's jemalloc;
 * and with a true monotonic clock, Python's time.sleep() fails once the wall clock has stepped.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *ahead;

/* Follow the clock in this file from now on; return 0 if that is possible. */
int follow_wall_clock(const char *path) {
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    return -1;
  }
  void *found = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (found == MAP_FAILED) {
    return -1;
  }
  ahead = found;
  return 0;
}

__attribute__((constructor)) static void follow_first(void) {
  const char *path = getenv("DISTLOCK_WALL_CLOCK");
  if (path) {
    follow_wall_clock(path);
  }
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = (int)syscall(SYS_clock_gettime, clock, now);
  if (!failed && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    int64_t moved = now->tv_sec * 1000000000LL + now->tv_nsec + *ahead * 1000;
    now->tv_sec = moved / 1000000000;
    now->tv_nsec = moved % 1000000000;
  }
  return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec precise;
  int failed = clock_gettime(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return failed;
}

time_t time(time_t *result) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (result) {
    *result = now.tv_sec;
  }
  return now.tv_sec;
}

/* Wait until a time of the moved clock, as MariaDB does. A time of the monotonic clock is far below
 * that of the wall clock, and stays. */
int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
  static int (*wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
  struct timespec moved = *until;
  if (!wait) {
    wait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
  }
  if (ahead && moved.tv_sec > 1000000000) {
    int64_t true_end = moved.tv_sec * 1000000000LL + moved.tv_nsec - *ahead * 1000;
    moved.tv_sec = true_end / 1000000000;
    moved.tv_nsec = true_end % 1000000000;
  }
  return wait(condition, mutex, &moved);
}
