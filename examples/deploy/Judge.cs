// Not run: written after ONNX Runtime's C# API, package Microsoft.ML.OnnxRuntime.
// Judges an image by a file of skad.export_onnx:
//     dotnet run -- line3.onnx canvas.rgb
// canvas.rgb holds the image at the size of the canvas, 8-bit RGB, row by row.
using System;
using System.IO;
using System.Linq;
using Microsoft.ML.OnnxRuntime;

if (args.Length != 2)
{
    Console.Error.WriteLine("usage: judge line3.onnx canvas.rgb");
    return 1;
}
using var options = new SessionOptions { IntraOpNumThreads = 1 };
using var session = new InferenceSession(args[0], options);  // made once, used for every image

// (images, height, width, 3); how many images is left open.
long[] shape = session.InputMetadata["canvas"].Dimensions.Select(side => (long)side).ToArray();
shape[0] = 1;
byte[] pixels = File.ReadAllBytes(args[1]);
if (pixels.Length != shape[1] * shape[2] * 3)
{
    Console.Error.WriteLine("the canvas must have as many bytes as height x width x 3");
    return 1;
}

using var canvas = OrtValue.CreateTensorValueFromMemory(pixels, shape);
using var run = new RunOptions();
string[] outputs = { "score", "verdict", "p_value", "map" };
using var found = session.Run(run, new[] { "canvas" }, new[] { canvas }, outputs);

float score = found[0].GetTensorDataAsSpan<float>()[0];
bool good = found[1].GetTensorDataAsSpan<long>()[0] > 0;
float pValue = found[2].GetTensorDataAsSpan<float>()[0];
ReadOnlySpan<float> map = found[3].GetTensorDataAsSpan<float>();  // height x width, higher = more anomalous
int peak = 0;
for (int i = 1; i < map.Length; i++)
{
    if (map[i] > map[peak]) peak = i;
}
Console.WriteLine($"score {score}");
Console.WriteLine($"verdict {(good ? "good" : "defective")}");
Console.WriteLine($"p_value {pValue}");
Console.WriteLine($"peak {peak / shape[2]} {peak % shape[2]}");
return 0;
