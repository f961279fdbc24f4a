// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/checkpoint.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/scaled.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/gelu.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/normalisation/layer_norm.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/killed_saves.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/thrown.hpp"

namespace {

using namespace stochastic_depth;
using test::Bytes;
using test::parameters;
using test::read;
using test::same_bits;
using test::TemporaryDirectory;
using test::write;

template <class Scalar>
using Two = Sequential<Linear<Scalar>, Linear<Scalar>>;

template <class Scalar>
Two<Scalar> two(std::uint32_t seed, Index width = 2) {
    Philox random{seed};
    return Sequential{Linear<Scalar>{2, width, random}, Linear<Scalar>{width, 1, random}};
}

/// A function of the user's own.
struct Halved {
    using Scalar = double;
    [[nodiscard]] double value(double z) const { return z / 2; }
    [[nodiscard]] double derivative(double) const { return 0.5; }
};

template <class Network>
std::string load_error(const std::string& path, Network& network) {
    return thrown<std::runtime_error>([&] { load_parameters(path, network); });
}

TEST_CASE("save_parameters: the file is as its format says, byte by byte", "[checkpoint]") {
    const TemporaryDirectory directory;
    const std::string path = directory.file("one");
    const Linear<float> layer{Eigen::MatrixXf::Constant(1, 1, 1.5f),
                              Eigen::VectorXf::Constant(1, -2)};
    save_parameters(path, layer);
    Bytes expected{'S', 'D', 'P', 'A', 'R', 'A', 'M', 'S', 3, 0, 0, 0, 112, 0, 0, 0, 0, 0, 0, 0};
    const Bytes content{1,  0, 0,    0,    0,   0,   0,   0,                      // layers
                        0,  0, 0,    0,                                           // path
                        13, 0, 0,    0,    'L', 'i', 'n', 'e', 'a', 'r', ' ',     // words
                        '1', ' ', '-', '>', ' ', '1',
                        2,  0, 0,    0,    0,   0,   0,   0,                      // parameters
                        7,  0, 0,    0,    'w', 'e', 'i', 'g', 'h', 't', 's',     // name
                        32, 0, 0,    0,    1,   0,   0,   0,   0,   0,   0,   0,  // bits, rows
                        1,  0, 0,    0,    0,   0,   0,   0,                      // columns
                        0,  0, 0xc0, 0x3f,                                        // 1.5
                        4,  0, 0,    0,    'b', 'i', 'a', 's',                    // name
                        32, 0, 0,    0,    1,   0,   0,   0,   0,   0,   0,   0,  // bits, rows
                        1,  0, 0,    0,    0,   0,   0,   0,                      // columns
                        0,  0, 0,    0xc0,                                        // -2
                        0,  0, 0,    0,    0,   0,   0,   0};                     // state
    REQUIRE(content.size() == 83 + 29);
    expected.insert(expected.end(), content.begin(), content.end());
    Bytes found = read(path);
    REQUIRE(found.size() == expected.size() + 8);
    std::uint64_t hash = 0;
    for (std::size_t byte = 0; byte < 8; ++byte)
        hash |= std::uint64_t{found[expected.size() + byte]} << (8 * byte);
    CHECK(hash == detail::fnv1a(expected));
    found.resize(expected.size());
    CHECK(found == expected);
    CHECK(directory.count() == 1);
}

TEST_CASE("fnv1a: known answers", "[checkpoint]") {
    // From the reference implementation's test vectors.
    const auto hash = [](const std::string& text) {
        return detail::fnv1a(Bytes(text.begin(), text.end()));
    };
    CHECK(hash("") == 0xcbf29ce484222325);
    CHECK(hash("a") == 0xaf63dc4c8601ec8c);
    CHECK(hash("foobar") == 0x85944171f73967e8);
}

TEST_CASE("load_parameters: gives the bits that were saved, whatever they are", "[checkpoint]") {
    const TemporaryDirectory directory;
    const std::string path = directory.file("network");
    using Block = StochasticDepth<Residual<Linear<double>>>;
    const auto network = [](std::uint32_t seed) {
        Philox random{seed};
        std::vector<Block> blocks;
        for (int l = 0; l < 3; ++l)
            blocks.emplace_back(Residual{Linear<double>{4, 4, random}}, SurvivalProbability{0.5});
        return Sequential{Linear<double, 3, 4>{random}, Stack{blocks}};
    };
    auto saved = network(1);
    const double odd[] = {-0.0, 5e-324, std::numeric_limits<double>::infinity(),
                          std::bit_cast<double>(0x7ff8dead0000beefull), 1.7976931348623157e308};
    Index next = 0;
    test::for_each_parameter(saved, [&](double& value) {
        if (next < 5) value = odd[next++];
    });
    save_parameters(path, saved);
    auto loaded = network(2);
    REQUIRE_FALSE(same_bits(parameters(loaded), parameters(saved)));
    load_parameters(path, loaded);
    CHECK(same_bits(parameters(loaded), parameters(saved)));

    auto single = two<float>(3);
    const auto other = two<float>(4);
    save_parameters(path, other);  // over the other network's
    load_parameters(path, single);
    CHECK(same_bits(parameters(single), parameters(other)));
    CHECK(directory.count() == 1);
}

TEST_CASE("load_parameters: every truncation and every flipped bit is an error, nothing is changed",
          "[checkpoint]") {
    const TemporaryDirectory directory;
    const std::string path = directory.file("network"), damaged = directory.file("damaged");
    save_parameters(path, two<float>(1));
    const Bytes bytes = read(path);
    REQUIRE(bytes.size() == 20 + 8 + (4 + 4 + 10) + 2 * (5 + 4 + 13) + 8 + 2 * (33 + 30) + 9 * 4 + 8 + 8);
    auto network = two<float>(2);
    const Eigen::VectorXd before = parameters(network);
    const auto refused = [&](const Bytes& changed, const std::string& reason) {
        write(damaged, changed);
        const std::string message = load_error(damaged, network);
        INFO(message);
        REQUIRE(holds(message, "load_parameters: " + damaged + ": the file ", reason));
        REQUIRE(same_bits(parameters(network), before));
    };
    for (std::size_t length = 0; length < bytes.size(); ++length)
        refused(Bytes(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(length)),
                "is cut short");
    for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
        INFO("bit " << bit);
        Bytes changed = bytes;
        changed[bit / 8] = static_cast<std::uint8_t>(changed[bit / 8] ^ (1u << (bit % 8)));
        if (bit < 64)
            refused(changed, "is of another kind");
        else if (bit < 96)
            refused(changed, "has format version ");
        else if (bit < 160)
            refused(changed, "content");  // too long or cut short, says the length
        else
            refused(changed, "is damaged");
    }
    Bytes longer = bytes;
    longer.push_back(0);
    refused(longer, "is too long");
    // The file that all these came from is good.
    load_parameters(path, network);
    CHECK(same_bits(parameters(network), parameters(two<float>(1))));
}

TEST_CASE("load_parameters: a whole file of another network is refused, saying how it differs",
          "[checkpoint]") {
    const TemporaryDirectory directory;
    const std::string path = directory.file("network");
    save_parameters(path, two<double>(1));
    const auto refused = [&](auto network, const std::string& reason) {
        const Eigen::VectorXd before = parameters(network);
        CHECK(load_error(path, network) == "load_parameters: " + path + ": " + reason);
        CHECK(same_bits(parameters(network), before));
    };
    const auto differs = [](int index, const std::string& found, const std::string& expected) {
        return "parameter " + std::to_string(index) + " of the file is " + found +
               ", the network's is " + expected;
    };
    refused(two<double>(2, 3),
            "layer 1 of the file is 0: Linear 2 -> 2, the network's is 0: Linear 2 -> 3");
    refused(two<float>(2),
            differs(0, "0.weights [2 x 2] of 64 bits", "0.weights [2 x 2] of 32 bits"));
    Philox random{3};
    const auto linear = [&](Index outputs) { return Linear<double>{2, outputs, random}; };
    refused(linear(2), "layer 0 of the file is Sequential, the network's is Linear 2 -> 2");
    refused(Sequential{linear(2)}, "the file holds 3 layers, the network has 2");
    refused(Sequential{linear(2), linear(1), linear(1)},
            "the file holds 3 layers, the network has 4");
    // The first layer fits, and still is not changed.
    refused(Sequential{linear(2), linear(4)},
            "layer 2 of the file is 1: Linear 2 -> 1, the network's is 1: Linear 2 -> 4");
    refused(Sequential<Two<double>>{Two<double>{linear(2), linear(1)}},
            "layer 1 of the file is 0: Linear 2 -> 2, the network's is 0: Sequential");
}

TEST_CASE("load_parameters: other activations, survival probabilities and factors are refused",
          "[checkpoint]") {
    const TemporaryDirectory directory;
    const std::string path = directory.file("network");
    const auto network = [](auto activation, double p = 0.5, double factor = 2) {
        const Linear<double> linear{Eigen::MatrixXd::Ones(1, 1), Eigen::VectorXd::Ones(1)};
        return Sequential{StochasticDepth{Residual{Sequential{linear, activation}},
                                          SurvivalProbability{p}},
                          Scaled{Identity<double>{}, factor}};
    };
    const auto refused = [&](auto other, const std::string& index, const std::string& found,
                             const std::string& expected) {
        CHECK(load_error(path, other) == "load_parameters: " + path + ": layer " + index +
                                             " of the file is " + found + ", the network's is " +
                                             expected);
    };
    save_parameters(path, network(ReLU<double>{}));
    const std::string skippable = "0: StochasticDepth, survival probability ";
    // The last digit counts.
    refused(network(ReLU<double>{}, 0.5000000000000001), "1", skippable + "0.5",
            skippable + "0.5000000000000001");
    refused(network(Tanh<double>{}), "5", "0.branch.1: ReLU", "0.branch.1: Tanh");
    refused(network(GELU<double>{}), "5", "0.branch.1: ReLU", "0.branch.1: GELU");
    refused(network(Elementwise<Halved>{}), "5", "0.branch.1: ReLU", "0.branch.1: Halved");
    refused(network(ReLU<double>{}, 0.5, 3), "7", "1: Scaled by 2", "1: Scaled by 3");
    save_parameters(path, network(LayerNorm<double>{1}));
    refused(network(LayerNorm<double>{1, 1e-6}), "5", "0.branch.1: LayerNorm 1, epsilon 1e-05",
            "0.branch.1: LayerNorm 1, epsilon 1e-06");
}

TEST_CASE("load_parameters: content that a good seal hides is refused", "[checkpoint]") {
    const TemporaryDirectory directory;
    const std::string path = directory.file("network");
    save_parameters(path, two<float>(1));
    const Bytes content = detail::read_sealed("test", path, "SDPARAMS", 3);
    auto network = two<float>(2);
    const Eigen::VectorXd before = parameters(network);
    const auto refused = [&](const Bytes& changed, const std::string& reason) {
        detail::write_sealed("test", path, "SDPARAMS", 3, changed);
        const std::string message = load_error(path, network);
        INFO(message);
        CHECK(holds(message, "load_parameters: " + path + ": ", reason));
        CHECK(same_bits(parameters(network), before));
    };
    for (std::size_t length = 0; length < content.size(); ++length)
        refused(Bytes(content.begin(), content.begin() + static_cast<std::ptrdiff_t>(length)),
                "a record needs ");
    Bytes longer = content;
    longer.resize(content.size() + 3);
    refused(longer, "the file has 3 bytes after the last record");
    // Of the first parameter's record, behind layers and number.
    const std::size_t record = 8 + (4 + 4 + 10) + 2 * (5 + 4 + 13) + 8;
    Bytes endless_name = content;
    for (std::size_t byte = 0; byte < 4; ++byte) endless_name[record + byte] = 0xff;
    refused(endless_name, "a record needs 4294967295 bytes");
    Bytes other_name = content;
    other_name[record + 6] = 'W';
    refused(other_name, "parameter 0 of the file is 0.Weights [2 x 2] of 32 bits");
    detail::write_sealed("test", path, "SDPARAMS", 4, content);
    CHECK(
        holds(load_error(path, network), "has format version 4, and this library reads version 3"));
    detail::write_sealed("test", path, "SDOTHERS", 3, content);
    CHECK(holds(load_error(path, network), "of another kind: it doesn't begin with SDPARAMS"));
}

TEST_CASE("save_parameters, load_parameters: a file that cannot be had is named with the reason",
          "[checkpoint]") {
    const TemporaryDirectory directory;
    auto network = two<float>(1);
    const std::string missing = directory.file("missing"), inside = directory.file("gone/network");
    CHECK(holds(load_error(missing, network),
                "load_parameters: " + missing + ": cannot open the file: ", "No such file"));
    CHECK(holds(load_error(directory.file(""), network), "cannot read the file: ", "directory"));
    CHECK(holds(thrown<std::runtime_error>([&] { save_parameters(inside, network); }),
                "save_parameters: " + inside + ": cannot create the file: ", "No such file"));
    // A directory of that name cannot be replaced; nothing is left beside it.
    const std::string taken = directory.file("taken");
    std::filesystem::create_directory(taken);
    CHECK(holds(thrown<std::runtime_error>([&] { save_parameters(taken, network); }),
                "save_parameters: " + taken + ": cannot replace the file: "));
    CHECK(directory.count() == 1);
    // A disk that is full: the old file stays.
    if (std::filesystem::exists("/dev/full")) {
        const std::string old = directory.file("old");
        save_parameters(old, network);
        const Bytes before = read(old);
        std::filesystem::create_symlink("/dev/full", old + ".partial");
        CHECK(holds(thrown<std::runtime_error>([&] { save_parameters(old, two<float>(2)); }),
                    "save_parameters: " + old + ": cannot write the file: ", "No space left"));
        CHECK(read(old) == before);
        save_parameters(old, two<float>(2));
        CHECK(read(old) != before);
    }
}

TEST_CASE("save_parameters: killed at any moment, it leaves the old file or the new one",
          "[checkpoint]") {
    // Large enough that many kills come while the file is half written.
    const auto constant = [](double value) {
        return Linear<double>{Eigen::MatrixXd::Constant(200, 200, value),
                              Eigen::VectorXd::Constant(200, value)};
    };
    const auto save = [&](const std::string& path, std::uint64_t generation) {
        save_parameters(path, constant(static_cast<double>(generation)));
    };
    const auto load = [&](const std::string& path) {
        auto network = constant(-1);
        load_parameters(path, network);
        const Eigen::VectorXd values = parameters(network);
        REQUIRE((values.array() == values(0)).all());
        return static_cast<std::uint64_t>(values(0));
    };
    test::check_killed_saves("network", save, load);
}

}  // namespace
