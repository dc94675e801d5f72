#pragma once

#include <string>
#include <vector>

namespace longstrand::pipelines {

// longstrand convert: a model from one checkpoint layout to the other.
void convert(const std::vector<std::string>& arguments);

}  // namespace longstrand::pipelines
