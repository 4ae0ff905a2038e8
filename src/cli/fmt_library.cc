// The compiled half of libfmt 9, once, instead of in every file.
//
// Debian ships it only as a shared library, and the command links nothing but libc; header-only use
// costs 5 s of compile time a file on a slow core. So this is the static library that is not shipped:
// the library's own implementation header and the instantiations that its other headers declare. For
// another version of libfmt CMake falls back to header-only use.
#include <fmt/format-inl.h>

static_assert(FMT_VERSION / 10000 == 9, "see CMakeLists.txt");

FMT_BEGIN_NAMESPACE
namespace detail {
template FMT_API auto dragonbox::to_decimal(float x) noexcept -> dragonbox::decimal_fp<float>;
template FMT_API auto dragonbox::to_decimal(double x) noexcept -> dragonbox::decimal_fp<double>;
template FMT_API auto thousands_sep_impl(locale_ref) -> thousands_sep_result<char>;
template FMT_API auto decimal_point_impl(locale_ref) -> char;
template FMT_API void buffer<char>::append(const char*, const char*);
template FMT_API void vformat_to(buffer<char>&, string_view,
                                 basic_format_args<FMT_BUFFER_CONTEXT(char)>, locale_ref);
}  // namespace detail
FMT_END_NAMESPACE
