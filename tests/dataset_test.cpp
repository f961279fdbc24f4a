// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/dataset.hpp>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/refusal.hpp"

namespace sd = stochastic_depth;
using Catch::Matchers::Equals;
using sd::Index;
using sd::test::refusal;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

/// inputs(i, j) = 10 j + i and label j mod 3: every entry tells where it came from.
template <class Scalar>
sd::Dataset<Scalar> numbered(Index features, Index samples) {
    sd::Matrix<Scalar> inputs(features, samples);
    Eigen::VectorXi labels(samples);
    for (Index j = 0; j < samples; ++j) {
        labels(j) = static_cast<int>(j % 3);
        for (Index i = 0; i < features; ++i) inputs(i, j) = static_cast<Scalar>(10 * j + i);
    }
    return sd::Dataset<Scalar>(inputs, labels, 3);
}

sd::Dataset<double, Eigen::MatrixXd> numbered_targets(Index samples) {
    Eigen::MatrixXd inputs(2, samples), targets(3, samples);
    for (Index j = 0; j < samples; ++j) {
        for (Index i = 0; i < 2; ++i) inputs(i, j) = static_cast<double>(10 * j + i);
        for (Index i = 0; i < 3; ++i) targets(i, j) = static_cast<double>(-100 * j - i);
    }
    return sd::Dataset<double, Eigen::MatrixXd>(inputs, targets);
}

}  // namespace

TEST_CASE("Dataset: the kind of data set follows from the arguments", "[dataset]") {
    const Eigen::MatrixXf x = Eigen::MatrixXf::Ones(4, 3);
    const Eigen::VectorXi labels = Eigen::VectorXi::Zero(3);
    const sd::Dataset classified{x, labels, 10};
    const sd::Dataset regression{x, Eigen::MatrixXf(x.topRows(2))};
    STATIC_REQUIRE(std::is_same_v<decltype(classified), const sd::Dataset<float, Eigen::VectorXi>>);
    STATIC_REQUIRE(std::is_same_v<decltype(regression), const sd::Dataset<float, Eigen::MatrixXf>>);
    STATIC_REQUIRE(std::is_same_v<decltype(classified)::Targets, Eigen::VectorXi>);
    STATIC_REQUIRE_FALSE(
        std::is_constructible_v<sd::Dataset<float>, Eigen::MatrixXf, Eigen::MatrixXf>);

    CHECK(classified.size() == 3);
    CHECK(classified.features() == 4);
    CHECK(classified.classes() == 10);
    CHECK(classified.outputs() == 10);
    CHECK(classified.inputs() == x);
    CHECK(classified.labels() == labels);
    CHECK(classified.targets() == labels);
    CHECK(regression.size() == 3);
    CHECK(regression.outputs() == 2);
    CHECK(regression.targets() == x.topRows(2));
}

TEST_CASE("Dataset: a copy is independent and a data set may be empty", "[dataset]") {
    const auto original = numbered<double>(2, 5);
    auto copy = original;
    copy = copy.head(2);
    CHECK(copy.size() == 2);
    CHECK(original.size() == 5);
    CHECK(original.inputs()(1, 4) == 41.0);
    const auto moved = std::move(copy);
    CHECK(moved.inputs()(0, 1) == 10.0);
    const auto empty = original.head(0);
    CHECK(empty.size() == 0);
    CHECK(empty.features() == 2);
    CHECK(empty.classes() == 3);
}

TEST_CASE("Dataset: head is the first samples with all classes", "[dataset]") {
    const auto data = numbered<float>(3, 7);
    const auto some = data.head(4);
    CHECK(some.inputs() == data.inputs().leftCols(4));
    CHECK(some.labels() == data.labels().head(4));
    CHECK(data.head(2).classes() == 3);
    CHECK(data.head(7).inputs() == data.inputs());
    const auto targets = numbered_targets(6);
    CHECK(targets.head(5).targets() == targets.targets().leftCols(5));
    CHECK(targets.head(5).inputs() == targets.inputs().leftCols(5));
}

TEST_CASE("Dataset: gather copies the samples asked for, in order, repeats included", "[dataset]") {
    const auto data = numbered<double>(2, 9);
    const std::vector<Index> order{8, 0, 3, 3, 5, 1};
    Eigen::MatrixXd x(2, 6);
    Eigen::VectorXi labels(6);
    data.gather(order, x, labels);
    for (Index j = 0; j < 6; ++j) {
        const Index sample = order[static_cast<std::size_t>(j)];
        CHECK(x(0, j) == static_cast<double>(10 * sample));
        CHECK(x(1, j) == static_cast<double>(10 * sample + 1));
        CHECK(labels(j) == sample % 3);
    }
    // Columns of a larger matrix are a place as well, and their neighbours stay as they were.
    Eigen::MatrixXd wide = Eigen::MatrixXd::Constant(2, 5, -1.0);
    Eigen::VectorXi more = Eigen::VectorXi::Constant(5, -1);
    data.gather(order, 2, 3, wide.middleCols(1, 3), more.segment(1, 3));
    CHECK(wide.middleCols(1, 3) == x.middleCols(2, 3));
    CHECK(more.segment(1, 3) == labels.segment(2, 3));
    CHECK((wide.col(0).array() == -1.0).all());
    CHECK((wide.col(4).array() == -1.0).all());
    CHECK(more(0) == -1);
    CHECK(more(4) == -1);
    data.gather(order, 6, 0, wide.leftCols(0), more.head(0));  // an empty batch at the end
}

TEST_CASE("Dataset: batches of an epoch, the last one short, cover each sample once", "[dataset]") {
    const auto data = numbered_targets(11);
    std::vector<Index> order(11);
    std::iota(order.begin(), order.end(), Index{0});
    std::reverse(order.begin(), order.end());
    Eigen::MatrixXd x(2, 4);
    Eigen::MatrixXd targets;
    std::vector<int> seen(11, 0);
    for (Index first = 0; first < 11; first += 4) {
        const Index count = std::min<Index>(4, 11 - first);
        data.resize_targets(targets, count);
        REQUIRE(targets.rows() == 3);
        REQUIRE(targets.cols() == count);
        data.gather(order, first, count, x.leftCols(count), targets);
        for (Index j = 0; j < count; ++j) {
            const Index sample = 10 - (first + j);
            CHECK(x(0, j) == static_cast<double>(10 * sample));
            CHECK(targets(2, j) == static_cast<double>(-100 * sample - 2));
            ++seen[static_cast<std::size_t>(sample)];
        }
    }
    CHECK(seen == std::vector<int>(11, 1));
    Eigen::VectorXi labels;
    numbered<double>(2, 3).resize_targets(labels, 3);
    CHECK(labels.size() == 3);
}

TEST_CASE("Dataset: every bad argument is refused by class, argument and value", "[dataset]") {
    using Labelled = sd::Dataset<double>;
    using Regression = sd::Dataset<double, Eigen::MatrixXd>;
    const Eigen::MatrixXd x = Eigen::MatrixXd::Ones(2, 3);
    const Eigen::VectorXi labels = Eigen::VectorXi::Zero(3);
    const auto with = [&](Index i, Index j, double value) {
        Eigen::MatrixXd changed = x;
        changed(i, j) = value;
        return changed;
    };
    const auto labelled = [&](Index j, int label) {
        Eigen::VectorXi changed = labels;
        changed(j) = label;
        return changed;
    };
    const Labelled data(x, labels, 2);
    const auto regression = numbered_targets(3);
    Eigen::MatrixXd out = Eigen::MatrixXd::Constant(2, 2, 7.0);
    Eigen::VectorXi out_labels = Eigen::VectorXi::Constant(2, 7);
    Eigen::MatrixXd out_targets = Eigen::MatrixXd::Constant(3, 2, 7.0);
    const std::vector<Index> two{0, 1};

    struct Case {
        const char* message;
        std::function<void()> call;
    };
    const std::vector<Case> cases{
        {"Dataset: classes must be at least 1, got 0", [&] { Labelled(x, labels, 0); }},
        {"Dataset: classes must be at least 1, got -4", [&] { Labelled(x, labels, -4); }},
        {"Dataset: inputs must have at least 1 row, got 0",
         [&] { Labelled(Eigen::MatrixXd(0, 3), labels, 2); }},
        {"Dataset: labels must have one entry for each of 3 samples, got 2",
         [&] { Labelled(x, labels.head(2), 2); }},
        {"Dataset: labels must lie in [0, 2), got 2 for sample 1",
         [&] { Labelled(x, labelled(1, 2), 2); }},
        {"Dataset: labels must lie in [0, 2), got -1 for sample 2",
         [&] { Labelled(x, labelled(2, -1), 2); }},
        {"Dataset: inputs must be finite, got nan in row 1 of sample 2",
         [&] { Labelled(with(1, 2, not_a_number), labels, 2); }},
        {"Dataset: inputs must be finite, got inf in row 0 of sample 1",
         [&] { Labelled(with(0, 1, infinity), labels, 2); }},
        {"Dataset: inputs must be finite, got -inf in row 1 of sample 0",
         [&] { Labelled(with(1, 0, -infinity), labels, 2); }},
        {"Dataset: targets must have at least 1 row, got 0",
         [&] { Regression(x, Eigen::MatrixXd(0, 3)); }},
        {"Dataset: targets must have one column for each of 3 samples, got 4",
         [&] { Regression(x, Eigen::MatrixXd::Ones(1, 4)); }},
        {"Dataset: targets must be finite, got nan in row 0 of sample 2",
         [&] { Regression(x, with(0, 2, not_a_number)); }},
        {"Dataset: inputs must be finite, got nan in row 0 of sample 2",
         [&] { Regression(with(0, 2, not_a_number), x); }},
        {"Dataset: count of head must lie in [0, 3], got 4", [&] { (void)data.head(4); }},
        {"Dataset: count of head must lie in [0, 3], got -1", [&] { (void)data.head(-1); }},
        {"Dataset: x of gather must be 2 x 3, got 2 x 2",
         [&] {
             data.gather(std::vector<Index>{0, 1, 2}, out, out_labels);
         }},
        {"Dataset: x of gather must be 2 x 2, got 3 x 2",
         [&] { data.gather(two, out_targets, out_labels); }},
        {"Dataset: targets of gather must be 2 x 1, got 1 x 1",
         [&] { data.gather(two, out, out_labels.head(1)); }},
        {"Dataset: targets of gather must be 3 x 2, got 2 x 2",
         [&] { regression.gather(two, out, out_targets.topRows(2)); }},
        {"Dataset: indices of gather must lie in [0, 3), got 3",
         [&] {
             data.gather(std::vector<Index>{0, 3}, out, out_labels);
         }},
        {"Dataset: indices of gather must lie in [0, 3), got -1",
         [&] {
             data.gather(std::vector<Index>{-1, 0}, out, out_labels);
         }},
        {"Dataset: first of gather must lie in [0, 2], got 3",
         [&] { data.gather(two, 3, 0, out, out_labels); }},
        {"Dataset: first of gather must lie in [0, 2], got -1",
         [&] { data.gather(two, -1, 2, out, out_labels); }},
        {"Dataset: count of gather must lie in [0, 1], got 2",
         [&] { data.gather(two, 1, 2, out, out_labels); }},
        {"Dataset: count of gather must lie in [0, 1], got 9223372036854775807",
         [&] { data.gather(two, 1, std::numeric_limits<std::int64_t>::max(), out, out_labels); }},
        {"Dataset: count of resize_targets must be at least 0, got -1",
         [&] { data.resize_targets(out_labels, -1); }},
    };
    for (const Case& bad : cases) CHECK_THAT(refusal(bad.call), Equals(bad.message));

    // What was refused left no trace.
    CHECK((out.array() == 7.0).all());
    CHECK((out_labels.array() == 7).all());
    CHECK((out_targets.array() == 7.0).all());
}

TEST_CASE("Dataset: the finiteness test takes every finite number and finds every other",
          "[dataset]") {
    // The largest and smallest numbers, both zeros: none of them may look like infinity.
    using Limits = std::numeric_limits<float>;
    Eigen::MatrixXf extremes(6, 1);
    extremes << Limits::max(), -Limits::max(), Limits::min(), Limits::denorm_min(), -0.0F, 0.0F;
    CHECK(sd::Dataset<float>(extremes, Eigen::VectorXi::Zero(1), 1).size() == 1);
    // Any row of a column longer than a packet.
    for (Index i = 0; i < 67; ++i)
        for (const float bad : {Limits::quiet_NaN(), Limits::infinity(), -Limits::infinity()}) {
            Eigen::MatrixXf x = Eigen::MatrixXf::Constant(67, 2, Limits::max());
            x(i, 1) = bad;
            const std::string message =
                refusal([&] { sd::Dataset<float>(x, Eigen::VectorXi::Zero(2), 1); });
            REQUIRE(message.ends_with(" in row " + std::to_string(i) + " of sample 1"));
        }
}
