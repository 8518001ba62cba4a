// Judges an image by a file of skad.export_onnx, with ONNX Runtime's C++ API:
//     judge line3.onnx canvas.rgb
// canvas.rgb holds the image at the size of the canvas, 8-bit RGB, row by row.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <vector>

int main(int argc, char** argv) try {
    if (argc != 3) throw std::runtime_error("usage: judge line3.onnx canvas.rgb");
    Ort::Env environment(ORT_LOGGING_LEVEL_ERROR, "judge");
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(1);
    Ort::Session session(environment, argv[1], options);  // made once, used for every image

    // (images, height, width, 3); how many images is left open.
    auto shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
    shape[0] = 1;
    std::ifstream file(argv[2], std::ios::binary);
    std::vector<char> read((std::istreambuf_iterator<char>(file)), {});
    if (int64_t(read.size()) != shape[1] * shape[2] * 3)
        throw std::runtime_error("the canvas must have as many bytes as height x width x 3");
    std::vector<uint8_t> pixels(read.begin(), read.end());

    auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    auto canvas = Ort::Value::CreateTensor<uint8_t>(
        memory, pixels.data(), pixels.size(), shape.data(), shape.size());
    const char* inputs[] = {"canvas"};
    const char* outputs[] = {"score", "verdict", "p_value", "map"};
    auto found = session.Run(Ort::RunOptions{}, inputs, &canvas, 1, outputs, 4);

    const float* map = found[3].GetTensorData<float>();  // height x width, higher = more anomalous
    const float* peak = std::max_element(map, map + shape[1] * shape[2]);
    std::cout.precision(9);
    std::cout << "score " << *found[0].GetTensorData<float>()
              << "\nverdict " << (*found[1].GetTensorData<int64_t>() > 0 ? "good" : "defective")
              << "\np_value " << *found[2].GetTensorData<float>()
              << "\npeak " << (peak - map) / shape[2] << ' ' << (peak - map) % shape[2] << '\n';
} catch (const std::exception& error) {
    std::cerr << "judge: " << error.what() << '\n';
    return 1;
}
