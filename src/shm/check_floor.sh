#!/bin/sh
# check_floor.sh LIBRARY: fails when a guest library needs a glibc newer than 2.17, any symbol of
# libstdc++, or a library besides libc and the dynamic linker.
set -eu
library=$1
fails=0
for version in $(objdump -T "$library" | grep -o 'GLIBC_[0-9.]*' | sort -u); do
  newest=$(printf '%s\nGLIBC_2.17\n' "$version" | sort -V | tail -1)
  if [ "$newest" != GLIBC_2.17 ]; then
    echo "needs $version:" >&2
    objdump -T "$library" | grep -F "$version" >&2
    fails=1
  fi
done
if nm -D --undefined-only "$library" | grep -E '_ZN?S|_Zn|_Zd|__cxa_guard|__gxx_personality' >&2; then
  echo "needs libstdc++ (above)" >&2
  fails=1
fi
if objdump -p "$library" | grep NEEDED | grep -vE 'libc\.so\.6|ld-linux|libpthread\.so\.0|libdl\.so\.2' >&2; then
  echo "needs another library (above)" >&2
  fails=1
fi
if nm "$library" | grep -E ' [bBdD] .*_GLOBAL__sub_I|_GLOBAL__sub_I' >&2; then
  echo "has a dynamic global (above)" >&2
  fails=1
fi
exit $fails
