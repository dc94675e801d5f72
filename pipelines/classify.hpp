#pragma once

#include <string>
#include <vector>

namespace longstrand::pipelines {

// longstrand classify: the class of every record or window, as a table; with the truth given, how good they
// are.
void classify(const std::vector<std::string>& arguments);

}  // namespace longstrand::pipelines
