#include "kernels/check.hpp"
#include "kernels/cuda_session.cuh"
#include "kernels/device.hpp"

namespace longstrand::cuda {
namespace {

__global__ void trial_kernel() {}

std::string version_text(int version) { return concat(version / 1000, ".", version % 1000 / 10); }

CudaProbe without_devices(cudaError_t status) {
  if (status == cudaErrorNoDevice) return {.description = "no NVIDIA GPU is visible"};
  int driver = 0;
  cudaDriverGetVersion(&driver);
  if (status != cudaErrorInsufficientDriver) {
    return {.state = CudaState::faulty, .description = concat("no GPU: ", cudaGetErrorString(status))};
  }
  if (driver == 0) return {.description = "no NVIDIA driver"};
  return {.state = CudaState::faulty,
          .description = concat("the NVIDIA driver is for CUDA ", version_text(driver), ", this build needs ",
                                version_text(CUDART_VERSION), ": update the driver")};
}

cudaError_t try_kernel(int index) {
  if (const cudaError_t status = cudaSetDevice(index); status != cudaSuccess) return status;
  trial_kernel<<<1, 1>>>();
  if (const cudaError_t status = cudaGetLastError(); status != cudaSuccess) return status;
  return cudaDeviceSynchronize();
}

}  // namespace

CudaProbe probe(int index) {
  int devices = 0;
  const cudaError_t counted = cudaGetDeviceCount(&devices);
  if (counted != cudaSuccess || devices == 0) {
    cudaGetLastError();
    return without_devices(counted == cudaSuccess ? cudaErrorNoDevice : counted);
  }
  CudaProbe result;
  result.devices = devices;
  if (index < 0 || index >= devices) {
    result.description = concat("there is no GPU ", index, ": ", devices, " visible");
    return result;
  }
  result.state = CudaState::faulty;
  cudaDeviceProp properties{};
  cudaError_t status = cudaGetDeviceProperties(&properties, index);
  if (status == cudaSuccess) status = try_kernel(index);
  result.compute_capability = properties.major * 10 + properties.minor;
  const std::string name =
      concat(properties.name, ", compute capability ", properties.major, ".", properties.minor);
  if (status == cudaSuccess && !blas_fault().empty()) {
    result.description = concat(name, ": ", blas_fault());
  } else if (status == cudaSuccess) {
    result.state = CudaState::usable;
    result.description = concat(name, ", ", properties.totalGlobalMem >> 30, " GiB");
  } else if (status == cudaErrorNoKernelImageForDevice) {
    result.description =
        concat(name, ", is none of the architectures of this build (CMAKE_CUDA_ARCHITECTURES)");
  } else {
    result.description = concat("GPU ", index, ": ", cudaGetErrorString(status));
  }
  cudaGetLastError();
  return result;
}

void synchronize(Device device) {
  check(cudaSetDevice(device.index), "select the device");
  check(cudaDeviceSynchronize(), "wait for the device");
}

}  // namespace longstrand::cuda
