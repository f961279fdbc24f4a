// SPDX-License-Identifier: MIT
#include "support/catch.hpp"

#ifndef STOCHASTIC_DEPTH_TESTS_HAVE_GZIP

TEST_CASE("open_npz: tested where zlib is installed", "[npz]") { WARN("skipped: no zlib"); }

#else

#include <stochastic_depth/io/npz_deflated.hpp>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/files.hpp"
#include "support/matrices.hpp"
#include "support/thrown.hpp"

namespace sd = stochastic_depth;
using sd::test::Bytes;
using sd::test::same_bits;
using sd::test::TemporaryFile;

TEST_CASE("open_npz: gives what save_npz_deflated and save_npz wrote", "[npz]") {
    const TemporaryFile file;
    sd::Philox random{1};
    const Eigen::MatrixXf noise = sd::test::random_matrix<float>(random, 300, 200);
    const Eigen::MatrixXd zeros = Eigen::MatrixXd::Zero(500, 400);
    const std::vector<sd::SurvivalMask> masks = {{1, 0}, {0, 1}};
    sd::save_npz_deflated(file.path(), {{"noise", noise}, {"zeros", zeros}, {"masks", masks},
                                        {"none", Eigen::MatrixXd(0, 2)}});
    CHECK(sd::test::read(file.path()).size() < 300 * 200 * 4 + 10000);
    const sd::NpzFile found = sd::open_npz(file.path());
    CHECK(same_bits(found.matrix<float>("noise"), noise));
    CHECK(same_bits(found.matrix<double>("zeros"), zeros));
    CHECK(found.matrix<double>("none").cols() == 2);
    CHECK(found.masks("masks") == masks);
    CHECK(holds(thrown<std::runtime_error>(
                    [&] { (void)sd::NpzFile{file.path()}.matrix<float>("noise"); }),
                "NpzFile: " + file.path() + ": noise is deflated: use stochastic_depth::open_npz"));
    sd::save_npz(file.path(), {{"noise", noise}});
    CHECK(same_bits(sd::open_npz(file.path()).matrix<float>("noise"), noise));
}

TEST_CASE("open_npz: damaged data are refused", "[npz]") {
    const TemporaryFile file;
    const Eigen::MatrixXd numbers{{1, 2}, {3, 4}};
    sd::save_npz_deflated(file.path(), {{"a", numbers}});
    const Bytes good = sd::test::read(file.path());
    const auto error = [&](const Bytes& bytes) {
        sd::test::write(file.path(), bytes);
        return thrown<std::runtime_error>([&] {
            if (!same_bits(sd::open_npz(file.path()).matrix<double>("a"), numbers))
                throw std::logic_error("read as something else");
        });
    };
    REQUIRE(error(good) == "nothing thrown");
    for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
        INFO("bit " << bit);
        Bytes changed = good;
        changed[bit / 8] = static_cast<std::uint8_t>(changed[bit / 8] ^ (1u << (bit % 8)));
        REQUIRE_NOTHROW(error(changed));
    }
    // Sizes that don't fit, in the directory: 22 bytes at the end, an entry of 51 before.
    const std::size_t entry = good.size() - 22 - 51;
    const auto with_size = [&](std::uint32_t size) {
        Bytes bytes = good;
        for (std::size_t i = 0; i < 4; ++i)
            bytes[entry + 24 + i] = static_cast<std::uint8_t>(size >> (8 * i));
        return error(bytes);
    };
    CHECK(holds(with_size(159), "a: it inflates to more bytes than it should have"));
    CHECK(holds(with_size(161), "a: it inflates to fewer bytes than it should have"));
    CHECK(holds(with_size(0), "a: it inflates to more bytes than it should have"));
    CHECK(holds(with_size(0xFFFFFFFF), "a.npy cannot have 4294967295 bytes, deflated to "));
    // Any bytes at all.
    for (std::uint32_t seed = 0; seed < 300; ++seed) {
        sd::Philox random{seed};
        Bytes from(50);
        for (auto& byte : from) byte = static_cast<std::uint8_t>(random());
        const std::string message =
            thrown<std::runtime_error>([&] { (void)sd::detail::inflate_raw(from, 100); });
        INFO(message);
        REQUIRE(holds(message, "it"));
    }
    const Bytes from = sd::detail::deflate_raw(Bytes(1000, 7));
    for (std::size_t length = 0; length < from.size(); ++length)
        CHECK(holds(thrown<std::runtime_error>([&] {
                        (void)sd::detail::inflate_raw(
                            Bytes(from.begin(), from.begin() + static_cast<std::ptrdiff_t>(length)),
                            1000);
                    }),
                    "its deflated data are cut short"));
    Bytes longer = from;
    longer.push_back(0);
    CHECK(holds(thrown<std::runtime_error>([&] { (void)sd::detail::inflate_raw(longer, 1000); }),
                "its deflated data end before their place does"));
    CHECK(sd::detail::inflate_raw(from, 1000) == Bytes(1000, 7));
}

#endif
