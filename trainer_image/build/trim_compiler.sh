#!/bin/sh
# Of g++, by which torch.compile makes a CPU's kernels: what makes shared objects of C++, and nothing else: 100 MB for 270.
set -eu
gcc=$(dirname "$(g++ -print-file-name=cc1plus)")
libraries=$(dirname "$(g++ -print-file-name=libc.so)")
rm -rf "$gcc"/cc1 "$gcc"/lto1 "$gcc"/lto-wrapper "$gcc"/g++-mapper-server "$libraries"/gprofng /usr/bin/*-lto-dump-* /usr/bin/*-gcov* /usr/bin/*-ld.gold /usr/bin/*-dwp /usr/bin/*gp-*
find "$gcc" "$libraries" \( -name 'lib*san.*' -o -name 'libquadmath.*' -o -name 'libgprofng.*' \) -delete
find /usr/lib -name '*.a' ! -name libgcc.a ! -name libc_nonshared.a ! -size -2k -delete  # empty ones stand for what is in libc
find /usr/share/doc -name 'changelog*' -delete
rm -rf /usr/share/man /usr/share/info /usr/share/locale
