// What the output goes to: how wide it is, whether it shows colours, and text that cannot harm it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace allot::cli {

// Columns of standard output: COLUMNS, else the terminal's, else 80. At least 20. Any thread.
size_t screen_width();

// Whether somebody reads standard output on a terminal, or has said how wide it is (COLUMNS).
bool has_width();

// Whether this descriptor is a terminal that takes colours: not with NO_COLOR set, nor with
// TERM=dumb.
bool shows_colour(int descriptor);

enum class Colour { kPlain, kBold, kRed, kGreen, kYellow, kBlue, kMagenta };

// `text` in this colour where standard output shows colours, else as it is.
std::string coloured(Colour colour, const std::string& text);

// `text` with everything escaped that is no printable character: control bytes, bytes that are no
// UTF-8, and characters that change the direction or the place of others ("\n", "\x1b", "\u202e").
// Any thread; allocates.
std::string harmless(std::string_view text);

// A typed value as an error repeats it: harmless, and cut where it is longer than people read.
std::string shown(std::string_view text);

// Columns that a harmless text takes.
size_t columns_of(std::string_view text);

// `text` cut to at most `columns`, ending in "..." where something is missing.
std::string cut(const std::string& text, size_t columns);

// `text` in lines of at most `columns`, broken at blanks; the lines after the first begin with
// `indent` blanks. A word that is longer than a line stays whole. No line break at the end.
std::string wrapped(std::string_view text, size_t columns, size_t indent);

}  // namespace allot::cli
