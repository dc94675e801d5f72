#pragma once

#include <string>
#include <vector>

namespace longstrand::pipelines {

// longstrand score: the log-likelihood of every record or window under a language model, as a table.
void score(const std::vector<std::string>& arguments);

}  // namespace longstrand::pipelines
