// SPDX-License-Identifier: MIT
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include <stochastic_depth/analysis/classification.hpp>
#include <stochastic_depth/io/idx.hpp>
#include <stochastic_depth/training/dataset.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>

#include "support/catch.hpp"
#include "support/refusals.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXd;
using Eigen::VectorXi;
using test::inf;
using test::nan;
using test::Outputs;
using test::refuses;

TEST_CASE("bad input: Dataset refuses sizes, labels, numbers and indices, and writes nothing",
          "[bad_input_data]") {
    Outputs outputs;
    const MatrixXd& x = outputs.x;
    MatrixXd &y2 = outputs.y2, &y3 = outputs.y3, &narrow3 = outputs.narrow3;
    const auto outputs_are_7 = [&] { return outputs.are_7(); };
    const Dataset<double> data{x, VectorXi{{0, 1, 2, 1, 0}}, 3};
    VectorXi labels = VectorXi::Constant(5, 7);
    const auto labels_are_7 = [&] { return (labels.array() == 7).all() && outputs_are_7(); };

    refuses(
        [] {
            (void)Dataset<double>(MatrixXd(0, 2), VectorXi{{0, 0}}, 1);
        },
        {"Dataset: inputs", "got 0"});
    refuses(
        [&] {
            (void)Dataset<double>(x, VectorXi{{0, 1}}, 2);
        },
        {"Dataset: labels", "5 samples", "got 2"});
    refuses(
        [&] {
            (void)Dataset<double>(x, VectorXi{{0, 1, 2, 1, 0}}, 2);
        },
        {"Dataset: labels", "[0, 2)", "got 2 for sample 2"});
    refuses(
        [&] {
            (void)Dataset<double>(x, VectorXi{{0, 1, 0, -1, 0}}, 2);
        },
        {"Dataset: labels", "got -1 for sample 3"});
    refuses([&] { (void)Dataset<double>(MatrixXd(3, 0), VectorXi(0), 0); },
            {"Dataset: classes", "got 0"});
    refuses(
        [] {
            (void)Dataset<double>(MatrixXd{{1.0, nan}}, VectorXi{{0, 0}}, 1);
        },
        {"Dataset: inputs", "got nan in row 0 of sample 1"});
    refuses(
        [] {
            (void)Dataset<double, MatrixXd>(MatrixXd{{1.0}, {-inf}}, MatrixXd(1, 1));
        },
        {"Dataset: inputs", "got -inf in row 1 of sample 0"});
    refuses([&] { (void)Dataset<double, MatrixXd>(x, MatrixXd(2, 4)); },
            {"Dataset: targets", "5 samples", "got 4"});
    refuses([&] { (void)Dataset<double, MatrixXd>(x, MatrixXd(0, 5)); },
            {"Dataset: targets", "got 0"});
    refuses(
        [] {
            (void)Dataset<double, MatrixXd>(MatrixXd::Zero(1, 1), MatrixXd::Constant(1, 1, nan));
        },
        {"Dataset: targets", "got nan"});
    refuses([&] { (void)data.head(6); }, {"Dataset: count of head", "[0, 5]", "got 6"});
    refuses([&] { (void)data.head(-1); }, {"Dataset: count of head", "got -1"});
    refuses(
        [&] {
            data.gather(std::vector<Index>{0, 1, 2, 3, 5}, y3, labels);
        },
        {"Dataset: indices of gather", "[0, 5)", "got 5"}, labels_are_7);
    refuses(
        [&] {
            data.gather(std::vector<Index>{0, 1, 2, 3, 4}, y2, labels);
        },
        {"Dataset: x of gather", "3 x 5", "got 2 x 5"}, labels_are_7);
    refuses(
        [&] {
            data.gather(std::vector<Index>{0, 1, 2, 3}, narrow3, labels);
        },
        {"Dataset: targets of gather", "4 x 1", "got 5 x 1"}, labels_are_7);
    refuses(
        [&] {
            data.gather(std::vector<Index>{0, 1, 2, 3, 4}, -1, 5, y3, labels);
        },
        {"Dataset: first of gather", "got -1"}, labels_are_7);
    refuses(
        [&] {
            data.gather(std::vector<Index>{0, 1, 2, 3, 4}, 1, 5, y3, labels);
        },
        {"Dataset: count of gather", "[0, 4]", "got 5"}, labels_are_7);
    refuses([&] { data.resize_targets(labels, -1); },
            {"Dataset: count of resize_targets", "got -1"}, labels_are_7);
}

TEST_CASE(
    "bad input: MeanSquaredError and SoftmaxCrossEntropy refuse targets and gradients that do not fit",
    "[bad_input_data]") {
    Outputs outputs;
    const MatrixXd &x = outputs.x, &wrong_x = outputs.wrong_x;
    MatrixXd &y2 = outputs.y2, &y3 = outputs.y3, &narrow3 = outputs.narrow3;
    const auto outputs_are_7 = [&] { return outputs.are_7(); };
    const VectorXi classes{{0, 1, 1, 0, 1}};
    const SoftmaxCrossEntropy<double> cross_entropy;
    const MeanSquaredError<double> squared_error;

    refuses([&] { (void)squared_error.value(x, wrong_x); },
            {"MeanSquaredError: targets", "3 x 5", "got 2 x 5"});
    refuses([&] { (void)squared_error.value_and_gradient(x, x, narrow3); },
            {"MeanSquaredError: gradient", "3 x 5", "got 3 x 4"}, outputs_are_7);
    refuses(
        [&] {
            (void)cross_entropy.value(x, VectorXi{{0, 1}});
        },
        {"SoftmaxCrossEntropy: labels", "5 samples", "got 2"});
    refuses(
        [&] {
            (void)cross_entropy.value(x, VectorXi{{0, 1, 3, 0, 0}});
        },
        {"SoftmaxCrossEntropy: labels", "[0, 3)", "got 3 for sample 2"});
    refuses(
        [&] {
            (void)cross_entropy.value_and_gradient(x, VectorXi{{0, 1, 0, -1, 0}}, y3);
        },
        {"SoftmaxCrossEntropy: labels", "got -1"}, outputs_are_7);
    refuses([&] { (void)cross_entropy.value_and_gradient(x, classes, y2); },
            {"SoftmaxCrossEntropy: gradient", "3 x 5", "got 2 x 5"}, outputs_are_7);
}

TEST_CASE("bad input: error_rate, negative_log_likelihood and calibration refuse scores and labels",
          "[bad_input_data]") {
    const VectorXi classes{{0, 1, 1, 0, 1}};
    const MatrixXd halves = MatrixXd::Constant(2, 5, 0.5);

    refuses([] { (void)error_rate(MatrixXd(2, 0), VectorXi(0)); }, {"error_rate: scores", "got 0"});
    refuses([&] { (void)error_rate(halves, VectorXi::Zero(1)); },
            {"error_rate: labels", "5 samples", "got 1"});
    refuses(
        [&] {
            (void)error_rate(halves, VectorXi{{0, 1, 2, 0, 0}});
        },
        {"error_rate: labels", "got 2"});
    refuses(
        [] {
            (void)error_rate(MatrixXd{{0.5}, {nan}}, VectorXi::Zero(1));
        },
        {"error_rate: scores", "got nan for class 1"});
    refuses([&] { (void)negative_log_likelihood(MatrixXd(2, 0), VectorXi(0)); },
            {"negative_log_likelihood: probabilities", "got 0"});
    refuses(
        [] {
            (void)negative_log_likelihood(MatrixXd{{1.5}, {-0.5}}, VectorXi::Zero(1));
        },
        {"negative_log_likelihood: probabilities", "got -0.5 for class 1"});
    refuses([&] { (void)negative_log_likelihood(MatrixXd(2 * halves), classes); },
            {"negative_log_likelihood: probabilities", "sum to 1", "got 2 for sample 0"});
    refuses(
        [&] {
            (void)negative_log_likelihood(halves, VectorXi{{0, 1, 0, 1, 9}});
        },
        {"negative_log_likelihood: labels", "got 9 for sample 4"});
    refuses([&] { (void)expected_calibration_error(halves, classes, 0); },
            {"expected_calibration_error: bins", "got 0"});
    refuses(
        [] {
            (void)expected_calibration_error(MatrixXd{{nan}, {0.5}}, VectorXi::Zero(1));
        },
        {"expected_calibration_error: probabilities", "got nan"});
}

TEST_CASE("bad input: the IDX reader refuses files and arrays that hold something else",
          "[bad_input_data]") {
    const std::vector<std::uint8_t> plain_idx{0, 0, 8, 1, 0, 0, 0, 2, 5, 6};
    const auto idx = [&](std::size_t at, std::uint8_t byte, std::size_t length) {
        auto bytes = plain_idx;
        bytes[at] = byte;
        bytes.resize(length);
        return [bytes] { (void)parse_idx(bytes, "some.idx"); };
    };

    refuses<std::runtime_error>(idx(0, 1, 10), {"parse_idx", "some.idx", "magic", "0x01000801"});
    refuses<std::runtime_error>(idx(2, 9, 10), {"parse_idx", "some.idx", "type 0x09"});
    refuses<std::runtime_error>(idx(3, 5, 10), {"parse_idx", "some.idx", "dimensions", "found 5"});
    refuses<std::runtime_error>(idx(7, 3, 10),
                                {"parse_idx", "some.idx", "expected 3 bytes", "found 2"});
    refuses<std::runtime_error>(idx(0, 0, 6), {"parse_idx", "some.idx", "header", "found 6"});
    refuses<std::runtime_error>([] { (void)read_idx("no-such-folder/no-such-file"); },
                                {"read_idx", "no-such-folder/no-such-file"});
    refuses(
        [] {
            (void)idx_images<float>({{4}, {1, 2, 3, 4}});
        },
        {"idx_images: array", "dimensions", "got 1"});
    refuses(
        [] {
            (void)idx_images<float>({{2, 2, 2}, {1, 2, 3}});
        },
        {"idx_images: array", "got 3 values"});
    refuses(
        [] {
            (void)idx_images<float>({{2, -2}, {1, 2, 3, 4}});
        },
        {"idx_images: array", "2 x -2"});
    refuses([] { (void)idx_labels({{2, 2}, {1, 2, 3, 4}}); }, {"idx_labels: array", "got 2"});
    refuses(
        [] {
            (void)idx_labels({{5}, {1, 2, 3, 4}});
        },
        {"idx_labels: array", "5", "got 4 values"});
}

}  // namespace
