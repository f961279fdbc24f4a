// SPDX-License-Identifier: MIT

// Writes the seeds of tests/fuzz/corpus: files of the formats' own, made by this library, small, with
// the byte before them that chooses what a target does with the rest.
//
//     make_corpus tests/fuzz/corpus

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iostream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <stochastic_depth/io/npz_deflated.hpp>
#include <stochastic_depth/io/safetensors.hpp>
#include <stochastic_depth/io/tokenizer_file.hpp>
#include <stochastic_depth/layers/image/conv2d.hpp>
#include <stochastic_depth/training/adam.hpp>
#include <stochastic_depth/training/checkpoint.hpp>
#include <stochastic_depth/training/training_checkpoint.hpp>

#include "networks.hpp"

namespace {

using namespace stochastic_depth;
using Bytes = std::vector<std::uint8_t>;

std::filesystem::path corpus;

[[nodiscard]] Bytes bytes_of(std::string_view text) { return {text.begin(), text.end()}; }
[[nodiscard]] Bytes head(std::span<const std::uint8_t> bytes, std::size_t size) {
    return {bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size)};
}

void write(const std::string& target, const std::string& name, Bytes bytes,
           std::initializer_list<std::uint8_t> before = {}) {
    bytes.insert(bytes.begin(), before.begin(), before.end());
    std::filesystem::create_directories(corpus / target);
    std::ofstream(corpus / target / name, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
}

void write_safetensors() {
    const auto narrow = fuzz::network<float>();
    const Bytes plain = detail::safetensors_bytes(narrow, {}, {});
    write("safetensors", "narrow", plain, {0});
    write("safetensors", "ignored", plain, {1});
    write("safetensors", "wide", detail::safetensors_bytes(fuzz::network<double>(), {}, {}), {2});
    write("safetensors", "self_test",
          detail::safetensors_bytes(narrow, {}, Eigen::Matrix2f::Identity()), {0});
    Philox random{3};
    const Conv2d<float> images{ImageShape{2, 3, 3}, {.channels = 2, .kernel = 2}, random};
    write("safetensors", "images", detail::safetensors_bytes(images, {}, {}), {3});
    write("safetensors", "cut_short", head(plain, plain.size() / 2), {0});
}

void write_numbers() {
    const Eigen::MatrixXf matrix{{1, 2, 3}, {4, 5, 6}};
    const Eigen::VectorXd vector{{1, -0.5}};
    const std::vector<SurvivalMask> masks = {{1, 0, 1}, {0, 1, 1}};
    write("npy", "matrix", detail::npy_bytes(matrix), {0});
    write("npy", "vector", detail::npy_bytes(Vector<double>(vector)), {1});
    write("npy", "number", detail::npy_bytes(Index{-3}), {1});
    write("npy", "masks", detail::npy_bytes(masks), {2});
    const auto other = [](std::string_view type, std::string_view order, std::string_view shape,
                          std::string_view numbers) {
        std::string header = detail::message("{'descr': '", type, "', 'fortran_order': ", order,
                                             ", 'shape': ", shape, ", }\n");
        std::string text = "\x93NUMPY\x02";
        text += '\0';
        for (int k = 0; k < 4; ++k)
            text += static_cast<char>(static_cast<unsigned char>(header.size() >> (8 * k) & 0xFF));
        return bytes_of(text + header + std::string(numbers));
    };
    write("npy", "halves", other("<f2", "False", "(2, 2)", "abcdefgh"), {0});
    write("npy", "big_endian", other(">i4", "True", "(1, 2)", std::string("\0\0\1\2\0\0\0\3", 8)), {0});
    write("npy", "rows", other("|u1", "False", "(2, 3)", std::string("\1\0\0\1\1\1", 6)), {2});
    const std::vector<NpzArray> arrays = {{"a", matrix}, {"b", masks}, {"c", 0.25}};
    write("npz", "stored", detail::npz_bytes(arrays, nullptr), {0});
    write("npz", "deflated", detail::npz_bytes(arrays, detail::deflate_raw), {1});
    const Bytes zeros(300);
    write("npz", "inflated", detail::deflate_raw(zeros), {2, 44, 1});
    write("npz", "letters", detail::deflate_raw(bytes_of("a text, a text, a text")), {2, 22, 0});
}

void write_images() {
    write("idx", "labels", {0, 0, 8, 1, 0, 0, 0, 3, 7, 0, 9});
    write("idx", "images", {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, 1, 2, 3, 255});
    write("idx", "none", {0, 0, 8, 2, 0, 0, 0, 0, 0, 0, 0, 5});
    Bytes image(3074, 100);
    image[0] = 9;
    write("cifar", "ten", head(image, 3073), {0});
    image[1] = 99;
    write("cifar", "hundred", image, {1});
}

/// A file as a function leaves it: sealed, and its content.
template <class Save>
void write_sealed(const std::string& target, const std::string& name, const Save& save,
                  std::uint8_t as_it_is) {
    const std::string path = (corpus / "file").string();
    save(path);
    std::ifstream file(path, std::ios::binary);
    const Bytes bytes{std::istreambuf_iterator<char>(file), {}};
    std::filesystem::remove(path);
    write(target, name, bytes, {as_it_is});
    write(target, name + "_content",
          {bytes.begin() + detail::seal_header, bytes.end() - detail::seal_hash},
          {static_cast<std::uint8_t>(as_it_is + 1)});
}

void write_checkpoints() {
    const auto network = fuzz::network<float>();
    write_sealed("checkpoint", "parameters",
                 [&](const std::string& path) { save_parameters(path, network); }, 0);
    write_sealed("checkpoint", "training", [&](const std::string& path) {
        save_training(path, network, Adam{network},
                      {.step = 7, .epoch = 1, .seed = 3, .description = "a training"});
    }, 2);
    write_sealed("tokenizer", "words", [](const std::string& path) {
        save_tokenizer(path, Tokenizer::of(std::vector<std::string>{"the cat, the dog"}, {.unit = TokenUnit::word},
                                           {.reserved = {"begin"}}));
    }, 0);
    write("json", "self_test",
          bytes_of(R"({"input":[[1,-2.5e3],[0,1]],"output":[[0.25],[1]],"tolerance":1e-3})"), {0});
    write("json", "strings", bytes_of(R"(["a","\u00e4\ud83d\ude00","\"\\\n",""])"), {1});
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::cerr << "usage: make_corpus DIRECTORY\n";
        return 2;
    }
    corpus = argv[1];
    write_safetensors();
    write_numbers();
    write_images();
    write_checkpoints();
    return 0;
}
