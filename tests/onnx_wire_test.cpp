// SPDX-License-Identifier: MIT
#include <cstdint>
#include <limits>

#include <stochastic_depth/export/onnx_wire.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"

namespace {

using stochastic_depth::detail::WireWriter;
using stochastic_depth::test::Bytes;

template <class Write>
Bytes written(const Write& write) {
    WireWriter writer;
    write(writer);
    return writer.bytes();
}

}  // namespace

TEST_CASE("WireWriter: the examples of protobuf's documentation, byte by byte", "[onnx_wire]") {
    CHECK(written([](WireWriter& to) { to.whole(1, 150); }) == Bytes{0x08, 0x96, 0x01});
    CHECK(written([](WireWriter& to) { to.text(2, "testing"); }) ==
          Bytes{0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67});
    WireWriter inner;
    inner.whole(1, 150);
    CHECK(written([&](WireWriter& to) { to.message(3, inner); }) ==
          Bytes{0x1a, 0x03, 0x08, 0x96, 0x01});
}

TEST_CASE("WireWriter: whole numbers from the smallest to the largest", "[onnx_wire]") {
    const auto of = [](std::int64_t value) {
        return written([&](WireWriter& to) { to.whole(1, value); });
    };
    CHECK(of(0) == Bytes{0x08, 0x00});
    CHECK(of(127) == Bytes{0x08, 0x7f});
    CHECK(of(128) == Bytes{0x08, 0x80, 0x01});
    CHECK(of(-1) == Bytes{0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01});
    CHECK(of(std::numeric_limits<std::int64_t>::max()) ==
          Bytes{0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f});
}

TEST_CASE("WireWriter: tags of two bytes, floats, nothing", "[onnx_wire]") {
    CHECK(written([](WireWriter& to) { to.whole(15, 1); }) == Bytes{0x78, 0x01});
    CHECK(written([](WireWriter& to) { to.whole(16, 1); }) == Bytes{0x80, 0x01, 0x01});
    CHECK(written([](WireWriter& to) { to.single(2, 1.0f); }) ==
          Bytes{0x15, 0x00, 0x00, 0x80, 0x3f});
    CHECK(written([](WireWriter& to) { to.text(1, ""); }) == Bytes{0x0a, 0x00});
    CHECK(written([](WireWriter& to) { to.message(1, WireWriter{}); }) == Bytes{0x0a, 0x00});
}

TEST_CASE("WireWriter: room for many bytes behind what is there", "[onnx_wire]") {
    WireWriter writer, more;
    writer.whole(1, 5);
    writer.room(9, 200)[199] = 7;
    more.whole(2, 6);
    writer.append(more);
    Bytes expected{0x08, 0x05, 0x4a, 0xc8, 0x01};
    expected.resize(5 + 199);
    expected.insert(expected.end(), {0x07, 0x10, 0x06});
    CHECK(writer.bytes() == expected);
    CHECK(writer.size() == expected.size());
}
