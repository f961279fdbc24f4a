// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/io/tensor_copy.hpp>

/// Messages of protobuf, in which ONNX files are written.
namespace stochastic_depth::detail {

/// Appends fields to a message. A field is a tag, 8 times its number plus the kind of its value, and
/// the value: a whole number in groups of seven bits, the lowest first; a float of four bytes; or
/// bytes behind their number, which may be a text or another message.
///
/// \source Protocol Buffers, Encoding.
class WireWriter {
public:
    [[nodiscard]] const std::vector<std::uint8_t>& bytes() const& { return bytes_; }
    [[nodiscard]] std::vector<std::uint8_t> bytes() && { return std::move(bytes_); }
    [[nodiscard]] std::size_t size() const { return bytes_.size(); }

    /// A number below 0 takes ten bytes.
    void whole(std::uint32_t field, std::int64_t value) {
        tag(field, of_whole);
        varint(static_cast<std::uint64_t>(value));
    }
    void single(std::uint32_t field, float value) {
        tag(field, of_four_bytes);
        bytes_.resize(bytes_.size() + sizeof value);
        store_little(bytes_.data() + bytes_.size() - sizeof value, value);
    }
    void text(std::uint32_t field, std::string_view value) {
        std::uint8_t* const to = room(field, value.size());
        if (!value.empty()) std::memcpy(to, value.data(), value.size());
    }
    void message(std::uint32_t field, const WireWriter& inner) {
        std::uint8_t* const to = room(field, inner.size());
        if (inner.size() > 0) std::memcpy(to, inner.bytes_.data(), inner.size());
    }
    void reserve(std::size_t size) { bytes_.reserve(size); }
    /// More fields of the same message.
    void append(const WireWriter& fields) {
        bytes_.insert(bytes_.end(), fields.bytes_.begin(), fields.bytes_.end());
    }

    /// The beginning of a field of so many bytes, which follow.
    void begin(std::uint32_t field, std::size_t size) {
        tag(field, of_bytes);
        varint(size);
    }
    /// A field of so many bytes, zero.
    /// \returns  Where they are, until something else is written.
    [[nodiscard]] std::uint8_t* room(std::uint32_t field, std::size_t size) {
        begin(field, size);
        bytes_.resize(bytes_.size() + size);
        return bytes_.data() + bytes_.size() - size;
    }

private:
    static constexpr std::uint32_t of_whole = 0, of_bytes = 2, of_four_bytes = 5;

    void tag(std::uint32_t field, std::uint32_t kind) { varint(std::uint64_t{field} << 3 | kind); }
    void varint(std::uint64_t value) {
        for (; value >= 0x80; value >>= 7)
            bytes_.push_back(static_cast<std::uint8_t>(value | 0x80));
        bytes_.push_back(static_cast<std::uint8_t>(value));
    }

    std::vector<std::uint8_t> bytes_;
};

}  // namespace stochastic_depth::detail
