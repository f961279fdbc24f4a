// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/io/sealed_file.hpp>
#include <stochastic_depth/io/tensor_copy.hpp>
#include <stochastic_depth/io/whole_file.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/types.hpp>

/// Arrays in NumPy's files. Needs POSIX, for which reason it is not part of all.hpp.
///
/// Format: "\x93NUMPY", two bytes of version, the length of the header (2 bytes little-endian in
/// version 1, 4 in 2 and 3), the header, a Python dictionary with 'descr', 'fortran_order' and
/// 'shape', padded with spaces and ended by a line break, and the numbers.
///
/// \source NumPy, numpy.lib.format, "Format Version 1.0" to "3.0".
namespace stochastic_depth {
namespace detail {

/// What the header of an array says.
struct NpyHeader {
    char order = '<';  // '<', '>' or '|'
    char kind = 'f';   // 'f', 'i', 'u' or 'b'
    std::size_t bytes = 4;
    bool is_fortran = false;
    std::vector<std::uint64_t> shape;
};

/// Reads the Python dictionary that a header is.
class NpyHeaderReader {
public:
    explicit NpyHeaderReader(std::string_view text) : text_(text) {}

    /// \throws std::runtime_error  if it is anything else.
    [[nodiscard]] NpyHeader read() {
        NpyHeader header;
        bool has_type = false, has_order = false, has_shape = false;
        const auto once = [&](bool& has, std::string_view key) {
            if (std::exchange(has, true)) fail(key, " is there twice");
        };
        expect('{');
        while (!skip('}')) {
            const std::string_view key = string();
            expect(':');
            if (key == "descr") {
                once(has_type, key);
                read_type(header);
            } else if (key == "fortran_order") {
                once(has_order, key);
                header.is_fortran = read_bool();
            } else if (key == "shape") {
                once(has_shape, key);
                read_shape(header.shape);
            } else {
                fail("unknown key ", key.substr(0, 64));
            }
            if (!skip(',')) {
                expect('}');
                break;
            }
        }
        skip_space();
        if (at_ != text_.size()) fail("something stands behind the dictionary");
        if (!has_type || !has_order || !has_shape)
            fail("it must have descr, fortran_order and shape");
        return header;
    }

private:
    template <class... Parts>
    [[noreturn]] void fail(const Parts&... parts) const {
        throw std::runtime_error(message("header: ", parts..., " (at byte ", at_, ")"));
    }
    void skip_space() {
        while (at_ < text_.size() &&
               (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t'))
            ++at_;
    }
    [[nodiscard]] bool skip(char c) {
        skip_space();
        const bool is_there = at_ < text_.size() && text_[at_] == c;
        at_ += is_there;
        return is_there;
    }
    void expect(char c) {
        if (!skip(c)) fail("expected ", std::string_view(&c, 1));
    }
    [[nodiscard]] std::string_view string() {
        skip_space();
        const char quote = at_ < text_.size() ? text_[at_] : '\0';
        if (quote != '\'' && quote != '"') fail("expected a string");
        const std::size_t begin = ++at_;
        while (at_ < text_.size() && text_[at_] != quote) {
            if (text_[at_] == '\\') fail("a string holds a backslash");
            ++at_;
        }
        if (at_ == text_.size()) fail("a string has no end");
        return text_.substr(begin, at_++ - begin);
    }
    [[nodiscard]] bool read_bool() {
        skip_space();
        for (const bool value : {true, false}) {
            const std::string_view word = value ? "True" : "False";
            if (!text_.substr(at_).starts_with(word)) continue;
            at_ += word.size();
            return value;
        }
        fail("fortran_order must be True or False");
    }
    void read_type(NpyHeader& header) {
        const std::string_view type = string();
        const auto is_one_of = [](char c, std::string_view letters) {
            return letters.find(c) != std::string_view::npos;
        };
        bool is_known = type.size() == 3 && is_one_of(type[0], "<>|=") &&
                        is_one_of(type[1], "fiub") && is_one_of(type[2], "1248");
        if (is_known) {
            header = {type[0], type[1], static_cast<std::size_t>(type[2] - '0'),
                      header.is_fortran, std::move(header.shape)};
            const bool is_float = header.kind == 'f';
            is_known = !(is_float && header.bytes == 1) &&
                       !(header.kind == 'b' && header.bytes != 1) &&
                       // Without an order there is one byte alone.
                       !(header.order == '|' && header.bytes != 1) && header.order != '=';
        }
        if (!is_known)
            fail("descr must be of plain numbers, '<f4' for one, found ", type.substr(0, 64));
    }
    void read_shape(std::vector<std::uint64_t>& shape) {
        expect('(');
        while (!skip(')')) {
            if (shape.size() == 32) fail("there must be at most 32 dimensions");
            shape.push_back(natural());
            if (skip(',')) continue;
            if (shape.size() == 1) fail("expected , behind the only dimension");
            expect(')');
            break;
        }
    }
    [[nodiscard]] std::uint64_t natural() {
        skip_space();
        const std::size_t begin = at_;
        std::uint64_t number = 0;
        for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
            const auto digit = static_cast<std::uint64_t>(text_[at_] - '0');
            if (number > (std::numeric_limits<std::uint64_t>::max() - digit) / 10)
                fail("a dimension is out of range");
            number = 10 * number + digit;
        }
        if (at_ == begin) fail("expected a dimension without sign");
        if (text_[begin] == '0' && at_ > begin + 1) fail("a dimension begins with 0");
        return number;
    }

    std::string_view text_;
    std::size_t at_ = 0;
};

/// A header and the numbers behind it, as many as it says. Reading may change these.
struct NpyArray {
    NpyHeader header;
    std::span<std::uint8_t> data;
};

/// \throws std::runtime_error  saying what is wrong.
[[nodiscard]] inline NpyArray parse_npy(std::span<std::uint8_t> bytes) {
    const auto fail = [](const auto&... parts) { throw std::runtime_error(message(parts...)); };
    constexpr std::string_view magic = "\x93NUMPY";
    for (std::size_t i = 0; i < std::min(magic.size(), bytes.size()); ++i)
        if (bytes[i] != static_cast<std::uint8_t>(magic[i]))
            fail("the file is of another kind: it doesn't begin with 93 NUMPY");
    if (bytes.size() < 8) fail("the file is cut short: it has ", bytes.size(), " bytes");
    const unsigned major = bytes[6], minor = bytes[7];
    if (major < 1 || major > 3 || minor != 0)
        fail("the file has format version ", major, ".", minor, ", and 1.0 to 3.0 are read");
    const std::size_t digits = major == 1 ? 2 : 4;
    std::size_t length = 0;
    if (bytes.size() < 8 + digits) fail("the file is cut short: it has ", bytes.size(), " bytes");
    for (std::size_t i = digits; i-- > 0;) length = length << 8 | bytes[8 + i];
    const std::size_t begin = 8 + digits;
    if (length > bytes.size() - begin)
        fail("the file is cut short: its header has ", length, " bytes, and ",
             bytes.size() - begin, " are there");
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + begin, length);
    if (text.empty() || text.back() != '\n') fail("header: it must end with a line break");
    NpyArray array{NpyHeaderReader(text).read(), bytes.subspan(begin + length)};
    std::uint64_t size = array.header.bytes;
    bool is_empty = false;
    for (const std::uint64_t dimension : array.header.shape) {
        is_empty = is_empty || dimension == 0;
        if (dimension > 0 && size > (std::uint64_t{1} << 62) / dimension)
            fail("header: there are more numbers than can be counted");
        if (dimension > 0) size *= dimension;
    }
    if (is_empty) size = 0;
    if (array.data.size() != size)
        fail("the file is cut short or too long: its numbers take ", size, " bytes, and ",
             array.data.size(), " are there");
    return array;
}

/// Gives a matrix the numbers of an array; false if they may not fit a Scalar.
template <class Scalar>
[[nodiscard]] bool decode_npy(const NpyArray& array, const TensorForm& form, Scalar* to) {
    const NpyHeader& header = array.header;
    if (header.order == '>')
        for (std::size_t i = 0; i < array.data.size(); i += header.bytes)
            std::reverse(array.data.data() + i, array.data.data() + i + header.bytes);
    const auto decode = [&]<class Number>(std::type_identity<Number>) {
        read_tensor<Number>(array.data.data(), form, to);
        return true;
    };
    constexpr bool is_wide = sizeof(Scalar) == 8;
    switch (header.kind == 'b' ? 'u' : header.kind) {
        case 'f':
            if (header.bytes == 2) return decode(std::type_identity<HalfFloat>{});
            if (header.bytes == 4) return decode(std::type_identity<float>{});
            return is_wide && decode(std::type_identity<double>{});
        case 'u':
            if (header.bytes == 1) return decode(std::type_identity<std::uint8_t>{});
            if (header.bytes == 2) return decode(std::type_identity<std::uint16_t>{});
            return is_wide && header.bytes == 4 && decode(std::type_identity<std::uint32_t>{});
        default:
            if (header.bytes == 1) return decode(std::type_identity<std::int8_t>{});
            if (header.bytes == 2) return decode(std::type_identity<std::int16_t>{});
            return is_wide && header.bytes == 4 && decode(std::type_identity<std::int32_t>{});
    }
}

/// An array as a matrix: what the last index counts are columns, or of one dimension, a column; a
/// single number is [1 x 1].
template <class Scalar>
[[nodiscard]] Matrix<Scalar> npy_matrix(const NpyArray& array) {
    const NpyHeader& header = array.header;
    if (header.shape.size() > 2)
        throw std::runtime_error(
            message("the array must have at most 2 dimensions, found ", header.shape.size()));
    for (const std::uint64_t dimension : header.shape)
        if (dimension > std::uint64_t{1} << 48)
            throw std::runtime_error(message("a dimension is out of range: ", dimension));
    const auto size = [&](std::size_t k) {
        return k < header.shape.size() ? static_cast<Index>(header.shape[k]) : Index{1};
    };
    Matrix<Scalar> matrix(size(0), size(1));
    // In Fortran's order the array is the transposed one in C's.
    const Index rows = matrix.rows(), columns = matrix.cols();
    const TensorForm form = header.is_fortran ? TensorForm{{}, {columns, rows}, {rows, 1}}
                                              : TensorForm{{}, {rows, columns}, {1, rows}};
    if (!decode_npy(array, form, matrix.data()))
        throw std::runtime_error(message(
            "numbers of type ", std::string_view(&header.order, 1),
            std::string_view(&header.kind, 1), header.bytes, " don't all fit those of ",
            8 * sizeof(Scalar), " bits that are asked for"));
    return matrix;
}

/// The bytes of a file of such numbers: version 1.
template <class Number, class NumberOf>
[[nodiscard]] std::vector<std::uint8_t> npy_bytes(std::string_view type, bool is_fortran,
                                                  std::initializer_list<Index> shape, Index count,
                                                  const NumberOf& number) {
    std::string sizes;
    for (const Index size : shape) sizes += message(sizes.empty() ? "" : ", ", size);
    if (shape.size() == 1) sizes += ',';
    std::string header = message("{'descr': '", type, "', 'fortran_order': ",
                                 is_fortran ? "True" : "False", ", 'shape': (", sizes, "), }");
    // The numbers begin at a multiple of 64.
    while ((10 + header.size() + 1) % 64 != 0) header += ' ';
    header += '\n';
    constexpr std::string_view start = "\x93NUMPY\x01";
    std::vector<std::uint8_t> bytes(start.begin(), start.end());
    bytes.push_back(0);
    bytes.resize(10 + header.size() + static_cast<std::size_t>(count) * sizeof(Number));
    store_little(bytes.data() + 8, static_cast<std::uint16_t>(header.size()));
    std::copy(header.begin(), header.end(), bytes.begin() + 10);
    std::uint8_t* to = bytes.data() + 10 + header.size();
    for (Index i = 0; i < count; ++i, to += sizeof(Number)) store_little<Number>(to, number(i));
    return bytes;
}

template <class Scalar>
[[nodiscard]] std::vector<std::uint8_t> npy_bytes(const Matrix<Scalar>& matrix) {
    static_assert(std::is_same_v<Scalar, float> || std::is_same_v<Scalar, double>);
    return npy_bytes<Scalar>(sizeof(Scalar) == 4 ? "<f4" : "<f8", true,
                             {matrix.rows(), matrix.cols()}, matrix.size(),
                             [&](Index i) { return matrix.data()[i]; });
}
template <class Scalar>
[[nodiscard]] std::vector<std::uint8_t> npy_bytes(const Vector<Scalar>& vector) {
    static_assert(std::is_same_v<Scalar, float> || std::is_same_v<Scalar, double>);
    return npy_bytes<Scalar>(sizeof(Scalar) == 4 ? "<f4" : "<f8", false, {vector.size()},
                             vector.size(), [&](Index i) { return vector(i); });
}
[[nodiscard]] inline std::vector<std::uint8_t> npy_bytes(double number) {
    return npy_bytes<double>("<f8", false, {}, 1, [&](Index) { return number; });
}
[[nodiscard]] inline std::vector<std::uint8_t> npy_bytes(Index number) {
    return npy_bytes<std::int64_t>("<i8", false, {}, 1, [&](Index) { return number; });
}
/// [masks, layers], a row for each mask, of truth values.
[[nodiscard]] inline std::vector<std::uint8_t> npy_bytes(const std::vector<SurvivalMask>& masks) {
    const Index depth = masks.empty() ? 0 : masks.front().size();
    for (const SurvivalMask& mask : masks)
        if (mask.size() != depth)
            refuse("save_npy: masks must have ", depth, " layers each, got ", mask.size());
    const auto count = static_cast<Index>(masks.size());
    return npy_bytes<std::uint8_t>("|b1", false, {count, depth}, count * depth, [&](Index i) {
        return static_cast<std::uint8_t>(masks[static_cast<std::size_t>(i / depth)][i % depth]);
    });
}

/// \throws std::runtime_error  unless the array has a row of zeros and ones for each mask.
[[nodiscard]] inline std::vector<SurvivalMask> npy_masks(const NpyArray& array) {
    const NpyHeader& header = array.header;
    if (header.shape.size() != 2)
        throw std::runtime_error(
            message("masks must have 2 dimensions, found ", header.shape.size()));
    const Matrix<double> bits = npy_matrix<double>(array);
    std::vector<SurvivalMask> masks;
    masks.reserve(static_cast<std::size_t>(bits.rows()));
    for (Index j = 0; j < bits.rows(); ++j) {
        SurvivalMask mask = SurvivalMask::none(bits.cols());
        for (Index l = 0; l < bits.cols(); ++l) {
            if (bits(j, l) != 0 && bits(j, l) != 1)
                throw std::runtime_error(
                    message("masks must be of 0 and 1, found ", bits(j, l)));
            if (bits(j, l) == 1) mask.keep(l);
        }
        masks.push_back(std::move(mask));
    }
    return masks;
}

/// Reads a file by read(array), and names it in messages.
template <class Read>
[[nodiscard]] auto read_npy(std::string_view who, const std::string& path, const Read& read) {
    const WholeFile file(who, path);
    try {
        return read(parse_npy(file.bytes()));
    } catch (const std::runtime_error& error) {
        throw std::runtime_error(message(who, ": ", path, ": ", error.what()));
    }
}

}  // namespace detail

/// Writes numbers into a file that numpy.load reads: a matrix [rows, columns] in Fortran's order, as
/// it lies in memory, a vector [size], or masks [masks, layers] of truth values.
///
///     save_npy("outputs.npy", y);  // np.load("outputs.npy").T is [batch, outputs]
///
/// The file is replaced in one step, as save_parameters does.
///
/// \param path  A std::filesystem::path does as well.
/// \throws std::runtime_error     naming the file and the reason, if it cannot be written.
/// \throws std::invalid_argument  if masks differ in their number of layers.
template <std::floating_point Scalar>
void save_npy(const std::string& path, const Matrix<Scalar>& matrix) {
    detail::replace_file("save_npy", path, detail::npy_bytes(matrix));
}
template <std::floating_point Scalar>
void save_npy(const std::string& path, const Vector<Scalar>& vector) {
    detail::replace_file("save_npy", path, detail::npy_bytes(vector));
}
inline void save_npy(const std::string& path, const std::vector<SurvivalMask>& masks) {
    detail::replace_file("save_npy", path, detail::npy_bytes(masks));
}

/// Reads an array that numpy.save wrote, in either order: [rows, columns], or one of one dimension
/// as a column.
///
///     const Eigen::MatrixXf x = load_npy<float>("inputs.npy").transpose();  // of [batch, features]
///
/// \param path  A std::filesystem::path does as well.
/// \returns     Whole numbers, truth values and narrower numbers converted, of either byte order.
/// \throws std::runtime_error  naming the file and what is wrong, if it cannot be read, is cut
///                             short, of another kind, or holds numbers that don't fit a Scalar.
template <std::floating_point Scalar>
[[nodiscard]] Matrix<Scalar> load_npy(const std::string& path) {
    return detail::read_npy("load_npy", path, detail::npy_matrix<Scalar>);
}

/// Reads masks, an array [masks, layers] of truth values or of numbers 0 and 1.
/// \throws std::runtime_error  as load_npy does, and if there is another number.
[[nodiscard]] inline std::vector<SurvivalMask> load_npy_masks(const std::string& path) {
    return detail::read_npy("load_npy_masks", path, detail::npy_masks);
}

}  // namespace stochastic_depth
