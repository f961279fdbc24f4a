// SPDX-License-Identifier: MIT
//
// Which language is a word of? A transformer whose sublayers are skipped at random in training reads
// its letters, each with its neighbours. Data are word lists; one word in ten, in lower case, is held
// out, on whatever lists it is, so that no test word was trained on in any language. A word of
// several lists stands there once for each, with each of their names: then no answer is always
// right, the network should say so, and the least error that any rule can have is printed. At the
// end all rules for using the network stand side by side, and naive Bayes on n-grams of letters.
// Then, with --ask, what is typed is answered: the probabilities of the languages, and what the
// masks disagree about.
#include <iostream>
#include <string>
#include <string_view>

#include "../common/output_file.hpp"
#include "../common/program.hpp"
#include "../common/text_report.hpp"
#include "options.hpp"
#include "words.hpp"

namespace language_id {
namespace {

void answer(const common::TextModel& model, const Options& options) {
    // The vocabulary tells how the model's words were made.
    std::size_t letters = 0;
    if (!model.tokenizer.vocabulary().tokens().empty())
        sd::detail::for_each_character("language_id", model.tokenizer.vocabulary().tokens().front(),
                                       [&](std::string_view) { ++letters; });
    common::answer_lines(std::cin, std::cout, model, options.threads,
                         [&](const std::string& line) { return as_words(line, letters / 2); });
}

void run(const Options& options) {
    if (!options.load.empty()) return answer(common::load_model(options.load), options);
    common::check_outputs(options);
    if (!options.save.empty()) common::check_writable("--save", options.save);
    const Words words =
        read_languages(options.languages, options.data, options.train, options.test);
    std::cout << "Of the test words " << common::fixed(100 * words.shared, 1)
              << " % stand in several lists; by those drawn more than once every rule has an error "
                 "of at least "
              << common::fixed(100 * words.least_error, 1) << " %.\n";
    const common::TextModel model = common::train_and_report(
        with_neighbours(words.texts, static_cast<std::size_t>(options.neighbours)), options,
        options, options.threads, options.exact_texts, naive_bayes(words.texts));
    if (!options.save.empty()) common::save_model(options.save, model, options);
    if (options.ask) answer(model, options);
}

}  // namespace
}  // namespace language_id

int main(int argc, char** argv) {
    return common::run_program("language_id", argc, argv, language_id::parse_options,
                               language_id::run);
}
