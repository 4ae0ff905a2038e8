/* The layout headers are readable from C: compiling this file is the test. */
#include "abi/env.h"
#include "abi/region.h"

_Static_assert(sizeof(AllotSliceFile) == 5840896, "as from C++");

int allot_abi_is_c(void);
int allot_abi_is_c(void) {
  return (int)ALLOT_SLOT_STATE(ALLOT_SLOT_WORD(2, 1, 1));
}
