// SPDX-License-Identifier: MIT
#pragma once

#include <exception>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <string>

#include <stochastic_depth/types.hpp>

#include "support/catch.hpp"

/// Wrong calls: what each must throw, what the message must hold, and what it must leave alone.
namespace stochastic_depth::test {

inline constexpr double nan = std::numeric_limits<double>::quiet_NaN();
inline constexpr double inf = std::numeric_limits<double>::infinity();

/// A call by its address: hundreds of lambdas go through one function, and each costs little to
/// compile.
template <class Result>
class CallView {
public:
    template <class Call>
    explicit CallView(const Call& call)
        : call_(&call),
          run_([](const void* self) -> Result { return (*static_cast<const Call*>(self))(); }) {}
    Result operator()() const { return run_(call_); }

private:
    const void* call_;
    Result (*run_)(const void*);
};

template <class Error>
std::string message_of(const CallView<void>& call) {
    try {
        call();
    } catch (const Error& error) {
        return error.what();
    } catch (const std::exception& error) {
        FAIL_CHECK("another exception: " << error.what());
        return error.what();
    }
    FAIL_CHECK("nothing thrown");
    return {};
}

inline void check_refusal(const std::string& message, std::initializer_list<const char*> fragments,
                          const CallView<bool>& unchanged) {
    INFO("wants \"" << *fragments.begin() << "\", said \"" << message << '"');
    CHECK_FALSE(message.empty());
    for (const char* fragment : fragments) {
        INFO("must name " << fragment);
        CHECK(message.find(fragment) != std::string::npos);
    }
    CHECK(unchanged());
}

/// Checks that a call throws an Error with these fragments in its message, and that `unchanged()`
/// holds afterwards.
template <class Error = std::invalid_argument, class Call, class Unchanged>
void refuses(const Call& call, std::initializer_list<const char*> fragments,
             const Unchanged& unchanged) {
    check_refusal(message_of<Error>(CallView<void>(call)), fragments, CallView<bool>(unchanged));
}

/// The same for a call that has nothing to change.
template <class Error = std::invalid_argument, class Call>
void refuses(const Call& call, std::initializer_list<const char*> fragments) {
    refuses<Error>(call, fragments, [] { return true; });
}

/// Inputs of 5 samples, and outputs of many shapes that hold 7 until somebody writes.
struct Outputs {
    const Eigen::MatrixXd x = Eigen::MatrixXd::Random(3, 5);
    const Eigen::MatrixXd wrong_x = Eigen::MatrixXd::Random(2, 5);
    Eigen::MatrixXd y2 = Eigen::MatrixXd::Constant(2, 5, 7.0);
    Eigen::MatrixXd y3 = Eigen::MatrixXd::Constant(3, 5, 7.0);
    Eigen::MatrixXd y4 = Eigen::MatrixXd::Constant(4, 5, 7.0);
    Eigen::MatrixXd narrow3 = Eigen::MatrixXd::Constant(3, 4, 7.0);
    Eigen::MatrixXd narrow4 = Eigen::MatrixXd::Constant(4, 4, 7.0);

    [[nodiscard]] bool are_7() const {
        return (y2.array() == 7).all() && (y3.array() == 7).all() && (y4.array() == 7).all() &&
               (narrow3.array() == 7).all() && (narrow4.array() == 7).all();
    }
};

}  // namespace stochastic_depth::test
