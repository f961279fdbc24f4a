// SPDX-License-Identifier: MIT
#include <Eigen/Dense>

#include <cstdio>

int main() {
    const Eigen::MatrixXd a = Eigen::MatrixXd::Random(4, 4);
    const Eigen::MatrixXd b = Eigen::MatrixXd::Random(4, 4);
    const Eigen::MatrixXd c = a * b;
    std::printf("%g\n", c.sum());
}
