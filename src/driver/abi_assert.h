/* Size and offset checks that read the same in C11 and C++20.
 *
 * Every mirrored structure is pinned where it is declared: a mistake in a layout stops the build of
 * whoever includes it, not a user's program. tools/driver_parity.py compares the same facts with
 * the vendor's headers where those are on the machine. */
#ifndef ALLOT_DRIVER_ABI_ASSERT_H
#define ALLOT_DRIVER_ABI_ASSERT_H

#include <stddef.h>

#ifdef __cplusplus
#define ALLOT_ABI_ASSERT(condition, text) static_assert(condition, text)
#else
#define ALLOT_ABI_ASSERT(condition, text) _Static_assert(condition, text)
#endif

#define ALLOT_ABI_SIZE(type, bytes) \
  ALLOT_ABI_ASSERT(sizeof(type) == (bytes), #type " has another size")
#define ALLOT_ABI_OFFSET(type, field, bytes) \
  ALLOT_ABI_ASSERT(offsetof(type, field) == (bytes), #type "." #field " stands elsewhere")

#endif
