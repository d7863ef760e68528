/* In the place of TensorFlow Lite: a model whose input is kept in the file $INPUT, and whose output is the file $OUTPUT,
 * of $TYPE and $HEIGHT x $WIDTH. It loads no delegate. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/lite/delegates/external/external_delegate.h"

struct TfLiteTensor { TfLiteType type; };
static TfLiteTensor input = {kTfLiteInt8}, output;
static char something;

TfLiteModel* TfLiteModelCreateFromFile(const char* path) { return path ? (void*)&something : NULL; }
void TfLiteModelDelete(TfLiteModel* model) { (void)model; }
TfLiteInterpreterOptions* TfLiteInterpreterOptionsCreate(void) { return (void*)&something; }
void TfLiteInterpreterOptionsDelete(TfLiteInterpreterOptions* options) { (void)options; }
void TfLiteInterpreterOptionsSetNumThreads(TfLiteInterpreterOptions* options, int32_t n) { (void)options, (void)n; }
void TfLiteInterpreterOptionsAddDelegate(TfLiteInterpreterOptions* options, TfLiteDelegate* d) { (void)options, (void)d; }
TfLiteInterpreter* TfLiteInterpreterCreate(const TfLiteModel* model, const TfLiteInterpreterOptions* options) {
  (void)model, (void)options;
  output.type = (TfLiteType)atoi(getenv("TYPE"));
  return (void*)&something;
}
void TfLiteInterpreterDelete(TfLiteInterpreter* interpreter) { (void)interpreter; }
TfLiteStatus TfLiteInterpreterAllocateTensors(TfLiteInterpreter* interpreter) { return interpreter ? kTfLiteOk : kTfLiteError; }
TfLiteStatus TfLiteInterpreterInvoke(TfLiteInterpreter* interpreter) { return interpreter ? kTfLiteOk : kTfLiteError; }
TfLiteTensor* TfLiteInterpreterGetInputTensor(const TfLiteInterpreter* i, int32_t n) { return i && n == 0 ? &input : NULL; }
const TfLiteTensor* TfLiteInterpreterGetOutputTensor(const TfLiteInterpreter* i, int32_t n) { return i && n == 0 ? &output : NULL; }
int32_t TfLiteInterpreterGetOutputTensorCount(const TfLiteInterpreter* i) { return i ? 1 : 0; }
const char* TfLiteTensorName(const TfLiteTensor* tensor) { return tensor == &output ? "boxes" : "image"; }
TfLiteType TfLiteTensorType(const TfLiteTensor* tensor) { return tensor->type; }
int32_t TfLiteTensorDim(const TfLiteTensor* tensor, int32_t dim) {
  (void)tensor;
  return atoi(getenv(dim == 1 ? "HEIGHT" : "WIDTH"));
}
size_t TfLiteTensorByteSize(const TfLiteTensor* tensor) {
  FILE* file = fopen(getenv("OUTPUT"), "rb");
  (void)tensor;
  fseek(file, 0, SEEK_END);
  const long size = ftell(file);
  fclose(file);
  return (size_t)size;
}
TfLiteQuantizationParams TfLiteTensorQuantizationParams(const TfLiteTensor* tensor) {
  TfLiteQuantizationParams q = {1.0f / 128, tensor == &input ? 0 : 4};
  if (tensor == &input && getenv("SCALE")) q.scale = strtof(getenv("SCALE"), NULL);
  return q;
}
TfLiteStatus TfLiteTensorCopyFromBuffer(TfLiteTensor* tensor, const void* data, size_t size) {
  FILE* file = fopen(getenv("INPUT"), "wb");
  (void)tensor;
  const size_t written = fwrite(data, 1, size, file);
  fclose(file);
  return written == size ? kTfLiteOk : kTfLiteError;
}
TfLiteStatus TfLiteTensorCopyToBuffer(const TfLiteTensor* tensor, void* data, size_t size) {
  FILE* file = fopen(getenv("OUTPUT"), "rb");
  (void)tensor;
  const size_t got = fread(data, 1, size, file);
  fclose(file);
  return got == size ? kTfLiteOk : kTfLiteError;
}
TfLiteExternalDelegateOptions TfLiteExternalDelegateOptionsDefault(const char* path) {
  TfLiteExternalDelegateOptions options;
  memset(&options, 0, sizeof options);
  options.lib_path = path;
  return options;
}
TfLiteDelegate* TfLiteExternalDelegateCreate(const TfLiteExternalDelegateOptions* options) { (void)options; return NULL; }
void TfLiteExternalDelegateDelete(TfLiteDelegate* delegate) { (void)delegate; }
