// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/io/cifar.hpp>
#include <stochastic_depth/training/channel_normalisation.hpp>

#include "data.hpp"
#include "usage_error.hpp"

namespace common {

/// Images of one shape, normalised, and their classes.
struct Images {
    std::string name;
    sd::ImageShape shape;
    sd::Dataset<float> train;
    sd::Dataset<float> test;
};

/// The first `count` images of some files of CIFAR-10.
[[nodiscard]] inline sd::CifarImages load_cifar10(const std::string& folder,
                                                  const std::vector<std::string>& files,
                                                  sd::Index count) {
    sd::CifarImages all;
    all.pixels.resize(sd::CifarImages::shape.size(), count);
    all.labels.resize(count);
    sd::Index done = 0;
    for (const std::string& file : files) {
        if (done == count) break;
        const sd::CifarImages part = sd::read_cifar10(folder + "/" + file);
        const sd::Index taken = std::min(count - done, part.labels.size());
        all.pixels.middleCols(done, taken) = part.pixels.leftCols(taken);
        all.labels.segment(done, taken) = part.labels.head(taken);
        done += taken;
    }
    if (done < count)
        throw UsageError(folder + ": " + std::to_string(count) +
                         " images are asked for, and it has " + std::to_string(done));
    return all;
}

/// CIFAR-10 in its binary version if that is in the folder, else Fashion-MNIST.
///
/// \param options  A struct that says what to read: data (a folder), train and test (numbers of
///                 images).
/// \throws UsageError  if neither is there, or is not what it should be.
template <class Options>
[[nodiscard]] Images load_images(const Options& options) {
    if (!std::filesystem::exists(options.data + "/data_batch_1.bin")) {
        Data data = load_data(options);
        return {"Fashion-MNIST", {1, 28, 28}, std::move(data.train), std::move(data.test)};
    }
    try {
        const sd::ImageShape shape = sd::CifarImages::shape;
        std::vector<std::string> batches;
        for (const char number : {'1', '2', '3', '4', '5'})
            batches.push_back(std::string("data_batch_") + number + ".bin");
        const auto train = load_cifar10(options.data, batches, options.train);
        const auto test = load_cifar10(options.data, {"test_batch.bin"}, options.test);
        const sd::ChannelNormalisation normalisation =
            sd::ChannelNormalisation::of(shape, train.pixels);
        const auto normalised = [&](const sd::CifarImages& part) {
            return sd::Dataset<float>{normalisation.apply<float>(part.pixels), part.labels, 10};
        };
        return {"CIFAR-10", shape, normalised(train), normalised(test)};
    } catch (const std::runtime_error& error) {
        throw UsageError(error.what());
    }
}

}  // namespace common
