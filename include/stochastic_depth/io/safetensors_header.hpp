// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/io/json_reader.hpp>
#include <stochastic_depth/io/little_endian.hpp>

namespace stochastic_depth::detail {

/// The types of numbers that safetensors files hold.
enum class TensorType : std::uint8_t {
    boolean, f4, f6_e2m3, f6_e3m2, u8, i8, f8_e5m2, f8_e4m3, f8_e8m0, f8_e4m3fnuz, f8_e5m2fnuz,
    i16, u16, f16, bf16, i32, u32, f32, c64, f64, i64, u64
};

struct TensorTypeName {
    std::string_view name;
    unsigned bits;
};
/// In the order of TensorType.
inline constexpr TensorTypeName tensor_types[] = {
    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6},     {"F6_E3M2", 6},     {"U8", 8},
    {"I8", 8},      {"F8_E5M2", 8}, {"F8_E4M3", 8},     {"F8_E8M0", 8},     {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8},             {"I16", 16},        {"U16", 16},        {"F16", 16},
    {"BF16", 16},   {"I32", 32},    {"U32", 32},        {"F32", 32},        {"C64", 64},
    {"F64", 64},    {"I64", 64},    {"U64", 64}};

[[nodiscard]] inline const TensorTypeName& name_of_type(TensorType type) {
    return tensor_types[static_cast<std::size_t>(type)];
}

/// What the header says of a tensor.
struct TensorEntry {
    std::string_view name;
    /// As written, "[2,3]".
    std::string_view shape;
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    TensorType type = TensorType::f32;
    bool is_used = false;
};

/// "[2, 3]", which is a shape as messages have it.
template <class Sizes>
[[nodiscard]] std::string text_of_shape(const Sizes& sizes) {
    std::string text = "[";
    for (const auto size : sizes) {
        if (text.size() > 1) text += ", ";
        Piece(size).append_to(text);
    }
    return text += "]";
}

/// What a safetensors file holds, checked: every byte behind the header belongs to one tensor.
///
/// \source huggingface/safetensors, README, section "Format".
class SafetensorsFile {
public:
    static constexpr std::uint64_t most_header_bytes = 100'000'000;
    /// So that what is kept of them fits into some 40 MB.
    static constexpr std::size_t most_tensors = std::size_t{1} << 19;
    static constexpr std::size_t most_metadata = std::size_t{1} << 16;
    static constexpr std::size_t most_dimensions = 8;
    /// What is no tensor's name.
    static constexpr std::string_view metadata_name = "__metadata__";
    /// Of a name; messages hold them.
    static constexpr std::size_t most_letters = 4096;

    /// \param bytes  Of the whole file; the header is changed in reading. They outlive this.
    /// \throws std::runtime_error  saying what is wrong.
    explicit SafetensorsFile(std::span<std::uint8_t> bytes) {
        if (bytes.size() < 8)
            fail("the file is cut short: it has ", bytes.size(), " bytes, fewer than the first 8");
        const auto length = load_little<std::uint64_t>(bytes.data());
        if (length > most_header_bytes)
            fail("the header must have at most ", most_header_bytes, " bytes, found ", length);
        if (length > bytes.size() - 8)
            fail("the file is cut short: its header has ", length, " bytes, and ",
                 bytes.size() - 8, " are there");
        const auto header = bytes.subspan(8, static_cast<std::size_t>(length));
        data_ = bytes.subspan(8 + header.size());
        if (header.empty() || header[0] != '{') fail("the header must begin with {");
        try {
            read_header({reinterpret_cast<char*>(header.data()), header.size()});
        } catch (const std::runtime_error& error) {
            fail("header: ", error.what());
        }
        check_data();
        check_names();
    }

    /// By their names.
    [[nodiscard]] std::span<TensorEntry> tensors() { return tensors_; }
    /// Null: there is none of that name.
    [[nodiscard]] TensorEntry* find(std::string_view name) {
        const auto found = std::lower_bound(
            tensors_.begin(), tensors_.end(), name,
            [](const TensorEntry& entry, std::string_view sought) { return entry.name < sought; });
        return found != tensors_.end() && found->name == name ? &*found : nullptr;
    }
    [[nodiscard]] const std::uint8_t* data(const TensorEntry& entry) const {
        return data_.data() + entry.begin;
    }
    [[nodiscard]] static std::vector<std::uint64_t> shape(const TensorEntry& entry) {
        std::vector<std::uint64_t> sizes;
        // Numbers alone: nothing is changed.
        JsonReader reader{{const_cast<char*>(entry.shape.data()), entry.shape.size()}};
        reader.array([&] { sizes.push_back(reader.natural()); });
        return sizes;
    }

    /// Keys and values, in the file's memory.
    [[nodiscard]] const std::vector<std::pair<std::string_view, std::span<char>>>& metadata()
        const {
        return metadata_;
    }

private:
    template <class... Parts>
    [[noreturn]] static void fail(const Parts&... parts) {
        throw std::runtime_error(message(parts...));
    }

    static void check_length(JsonReader& reader, std::string_view name) {
        if (name.size() > most_letters)
            reader.fail("a name must have at most ", most_letters, " bytes, found ", name.size());
    }

    void read_header(std::span<char> text) {
        JsonReader reader{text};
        bool has_metadata = false;
        reader.object([&](std::string_view key) {
            check_length(reader, key);
            if (key == metadata_name) {
                if (std::exchange(has_metadata, true)) reader.fail(metadata_name, " is there twice");
                return read_metadata(reader);
            }
            if (tensors_.size() == most_tensors)
                reader.fail("there must be at most ", most_tensors, " tensors");
            tensors_.push_back(read_tensor(reader, key));
        });
        reader.expect_end();
    }

    void read_metadata(JsonReader& reader) {
        reader.object([&](std::string_view key) {
            check_length(reader, key);
            if (metadata_.size() == most_metadata)
                reader.fail("there must be at most ", most_metadata, " metadata");
            const std::string_view value = reader.string();
            metadata_.emplace_back(
                key, std::span<char>{const_cast<char*>(value.data()), value.size()});
        });
        std::sort(metadata_.begin(), metadata_.end(),
                  [](const auto& a, const auto& b) { return a.first < b.first; });
        for (std::size_t i = 1; i < metadata_.size(); ++i)
            if (metadata_[i].first == metadata_[i - 1].first)
                reader.fail("metadata ", metadata_[i].first, " is there twice");
    }

    [[nodiscard]] static TensorEntry read_tensor(JsonReader& reader, std::string_view name) {
        TensorEntry entry;
        entry.name = name;
        std::uint64_t count = 1;
        bool is_empty = false, has_type = false, has_shape = false, has_offsets = false;
        const auto once = [&](bool& has, std::string_view field) {
            if (std::exchange(has, true)) reader.fail(name, " has ", field, " twice");
        };
        reader.object([&](std::string_view field) {
            if (field == "dtype") {
                once(has_type, field);
                entry.type = read_type(reader, name);
            } else if (field == "shape") {
                once(has_shape, field);
                std::size_t dimensions = 0;
                // The bracket is the first letter of what is kept.
                if (!reader.is_next('[')) reader.fail("shape of ", name, " must be an array");
                const std::size_t begin = reader.position();
                reader.array([&] {
                    if (++dimensions > most_dimensions)
                        reader.fail(name, " must have at most ", most_dimensions, " dimensions");
                    const std::uint64_t size = reader.natural();
                    // Another size of 0 doesn't hide that the rest is out of range.
                    if (size == 0)
                        is_empty = true;
                    else if (count > std::numeric_limits<std::uint64_t>::max() / size)
                        reader.fail(name, " has more numbers than can be counted");
                    else
                        count *= size;
                });
                entry.shape = reader.text_from(begin);
            } else if (field == "data_offsets") {
                once(has_offsets, field);
                std::size_t offsets = 0;
                reader.array([&] {
                    const std::uint64_t offset = reader.natural();
                    if (++offsets > 2) reader.fail(name, " must have 2 data_offsets");
                    (offsets == 1 ? entry.begin : entry.end) = offset;
                });
                if (offsets != 2) reader.fail(name, " must have 2 data_offsets, found ", offsets);
            } else {
                reader.fail(name, " has the field ", beginning(field),
                            ": a tensor has dtype, shape and data_offsets");
            }
        });
        if (!has_type) reader.fail(name, " has no dtype");
        if (!has_shape) reader.fail(name, " has no shape");
        if (!has_offsets) reader.fail(name, " has no data_offsets");
        const std::uint64_t each = name_of_type(entry.type).bits;
        if (count > std::numeric_limits<std::uint64_t>::max() / each)
            reader.fail(name, " has more bits than can be counted");
        if (entry.end < entry.begin)
            reader.fail(name, " ends at byte ", entry.end, ", before it begins at ", entry.begin);
        if (!is_empty && count * each % 8 != 0)
            reader.fail(name, " needs ", count * each, " bits for its shape, which are no bytes");
        const std::uint64_t needed = is_empty ? 0 : count * each / 8;
        if (entry.end - entry.begin != needed)
            reader.fail(name, " needs ", needed, " bytes for its shape, and has ",
                        entry.end - entry.begin);
        return entry;
    }

    [[nodiscard]] static TensorType read_type(JsonReader& reader, std::string_view name) {
        const std::string_view type = reader.string();
        for (std::size_t i = 0; i < std::size(tensor_types); ++i)
            if (tensor_types[i].name == type) return static_cast<TensorType>(i);
        reader.fail("dtype of ", name, " is unknown: ", beginning(type));
    }

    /// One tensor begins where another ends, from the first byte to the last.
    void check_data() {
        std::sort(tensors_.begin(), tensors_.end(), [](const TensorEntry& a, const TensorEntry& b) {
            return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
        });
        std::uint64_t at = 0;
        for (const TensorEntry& entry : tensors_) {
            if (entry.begin < at)
                fail(entry.name, " overlaps another tensor: it begins at byte ", entry.begin,
                     " of the data, and ", at, " are taken");
            if (entry.begin > at)
                fail("no tensor holds the bytes ", at, " to ", entry.begin, " of the data, before ",
                     entry.name);
            if (entry.end > data_.size())
                fail("the file is cut short: ", entry.name, " ends at byte ", entry.end,
                     " of the data, and ", data_.size(), " are there");
            at = entry.end;
        }
        if (at != data_.size())
            fail("the file is too long: tensors hold ", at, " of ", data_.size(),
                 " bytes of data");
    }

    void check_names() {
        std::sort(tensors_.begin(), tensors_.end(), [](const TensorEntry& a, const TensorEntry& b) {
            return a.name < b.name;
        });
        for (std::size_t i = 1; i < tensors_.size(); ++i)
            if (tensors_[i].name == tensors_[i - 1].name)
                fail(tensors_[i].name, " is there twice");
    }

    std::vector<TensorEntry> tensors_;
    std::vector<std::pair<std::string_view, std::span<char>>> metadata_;
    std::span<std::uint8_t> data_;
};

}  // namespace stochastic_depth::detail
