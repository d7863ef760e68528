/* Runs the bundle's model on one image, by TensorFlow Lite's C API: what an application in C starts from.
 *
 *     infer IMAGE.ppm CLASSES.pgm [DELEGATE.so]      a class map, a class a grey level
 *     infer IMAGE.ppm - [DELEGATE.so]                the labels of an image's best scores
 *     infer IMAGE.ppm OUTPUT [DELEGATE.so]           of a model without labels: OUTPUT.0.bin, ... as it stores them
 *
 * IMAGE.ppm is a binary PPM (P6) of the model's size; it is run in the bundle's folder, where model.tflite is. A delegate
 * that cannot be made is named on stderr, and the CPU runs the model. model.h was written for this bundle. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tensorflow/lite/c/c_api.h"
#include "tensorflow/lite/delegates/external/external_delegate.h"

#include "class_map.h"
#include "model.h"

enum { PIXELS = HEIGHT * WIDTH, TOP = 5 };

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static void *fail(const char *what) {
  fprintf(stderr, "infer: %s\n", what);
  exit(1);
}

static void *need(void *memory) { return memory ? memory : fail("out of memory"); }

static uint8_t *read_ppm(const char *path) {
  uint8_t *pixels = need(malloc(3 * PIXELS));
  int width = 0, height = 0;
  FILE *file = fopen(path, "rb");
  if (!file) fail("cannot open the image");
  if (fscanf(file, "P6 %d %d 255", &width, &height) != 2 || width != WIDTH || height != HEIGHT || fgetc(file) == EOF)
    fail("give a binary PPM (P6) of the model's size");
  if (fread(pixels, 3, PIXELS, file) != PIXELS) fail("the image ends before its last pixel");
  fclose(file);
  return pixels;
}

/* What the model's input stores for a level of a channel: real = (level - mean) / std, quantized; ties to even. */
static uint8_t stored(int level, int channel, TfLiteQuantizationParams q, int is_signed) {
  const long low = is_signed ? -128 : 0;
  long value = lrintf(((float)level - MEAN[channel]) / STD[channel] / q.scale) + q.zero_point;
  value = value < low ? low : value > low + 255 ? low + 255 : value;
  return (uint8_t)value;
}

/* The pixels as the model stores them: its channels in their order, grey by ITU-R 601. */
static void prepare(const uint8_t *pixels, uint8_t *data, TfLiteQuantizationParams q, int is_signed) {
  uint8_t levels[CHANNELS][256];
  for (int i = 0; i < CHANNELS * 256; i++) levels[i / 256][i % 256] = stored(i % 256, i / 256, q, is_signed);
  for (int i = 0; i < PIXELS; i++, pixels += 3) {
    const uint8_t grey = (uint8_t)((19595u * pixels[0] + 38470u * pixels[1] + 7471u * pixels[2] + 0x8000u) >> 16);
    for (int c = 0; c < CHANNELS; c++) *data++ = levels[c][CHANNELS == 1 ? grey : pixels[BGR ? 2 - c : c]];
  }
}

/* With the delegate, or without it, aloud, where it cannot be made or does not take the model. */
static TfLiteInterpreter *made(const TfLiteModel *model, const char *library, TfLiteDelegate **delegate) {
  for (int with = library != NULL; with >= 0; with--) {
    TfLiteInterpreterOptions *options = need(TfLiteInterpreterOptionsCreate());
    TfLiteInterpreterOptionsSetNumThreads(options, 1);
    if (with) {
      TfLiteExternalDelegateOptions external = TfLiteExternalDelegateOptionsDefault(library);
      *delegate = TfLiteExternalDelegateCreate(&external);
      if (*delegate) TfLiteInterpreterOptionsAddDelegate(options, *delegate);
    }
    TfLiteInterpreter *interpreter = with && !*delegate ? NULL : TfLiteInterpreterCreate(model, options);
    TfLiteInterpreterOptionsDelete(options);
    if (interpreter && TfLiteInterpreterAllocateTensors(interpreter) == kTfLiteOk) return interpreter;
    if (interpreter) TfLiteInterpreterDelete(interpreter);
    if (with) fprintf(stderr, "infer: the delegate %s does not load: the CPU runs the model\n", library);
  }
  return fail("the runtime does not load the model");
}

#if CLASSES == 0
static void write_outputs(const TfLiteInterpreter *interpreter, const char *target) {
  for (int32_t i = 0; i < TfLiteInterpreterGetOutputTensorCount(interpreter); i++) {
    const TfLiteTensor *output = TfLiteInterpreterGetOutputTensor(interpreter, i);
    const size_t bytes = TfLiteTensorByteSize(output);
    char path[4096];
    void *data = need(malloc(bytes));
    if (snprintf(path, sizeof path, "%s.%d.bin", target, (int)i) >= (int)sizeof path) fail("the output's name is too long");
    FILE *file = fopen(path, "wb");
    if (!file || TfLiteTensorCopyToBuffer(output, data, bytes) != kTfLiteOk) fail("cannot keep an output");
    if (fwrite(data, 1, bytes, file) != bytes || fclose(file)) fail("cannot write an output");
    printf("%s %s, %zu bytes\n", path, TfLiteTensorName(output), bytes);
    free(data);
  }
}
#else
static void write_classes(const int32_t *classes, const char *path) {
  FILE *file = fopen(path, "wb");
  if (!file) fail("cannot write the class map");
  fprintf(file, "P5 %d %d 255\n", WIDTH, HEIGHT);
  for (int i = 0; i < PIXELS; i++) fputc((int)classes[i], file);
  if (fclose(file)) fail("cannot write the class map");
}

static void print_best(const int8_t *scores, TfLiteQuantizationParams q, int is_signed) {
  int taken[CLASSES] = {0};
  for (int rank = 0; rank < TOP && rank < CLASSES; rank++) {
    int best = -1;
    for (int k = 0; k < CLASSES; k++)
      if (!taken[k] && (best < 0 || scores[k] > scores[best])) best = k;
    taken[best] = 1;
    const int value = is_signed ? scores[best] : scores[best] + 128;
    printf("%s %.3f\n", LABELS[best], (double)q.scale * (value - q.zero_point));
  }
}

#endif

int main(int argc, char **argv) {
  if (argc < 3 || argc > 4) {
    fprintf(stderr, "usage: infer IMAGE.ppm CLASSES.pgm|- [DELEGATE.so]\n");
    return 2;
  }
  TfLiteDelegate *delegate = NULL;
  TfLiteModel *model = TfLiteModelCreateFromFile(MODEL);
  if (!model) fail("cannot read " MODEL);
  TfLiteInterpreter *interpreter = made(model, argc > 3 ? argv[3] : NULL, &delegate);
  TfLiteTensor *input = TfLiteInterpreterGetInputTensor(interpreter, 0);
  uint8_t *pixels = read_ppm(argv[1]), *data = need(malloc(CHANNELS * PIXELS));
  const double start = now_ms();
  prepare(pixels, data, TfLiteTensorQuantizationParams(input), TfLiteTensorType(input) == kTfLiteInt8);
  const double prepared = now_ms();
  if (TfLiteTensorCopyFromBuffer(input, data, CHANNELS * PIXELS) != kTfLiteOk || TfLiteInterpreterInvoke(interpreter) != kTfLiteOk)
    fail("the inference fails");
  const double inferred = now_ms();

#if CLASSES == 0
  const double finished = now_ms();
  write_outputs(interpreter, argv[2]);
#else
  const TfLiteTensor *output = TfLiteInterpreterGetOutputTensor(interpreter, 0);
  const size_t bytes = TfLiteTensorByteSize(output);
  const int is_signed = TfLiteTensorType(output) == kTfLiteInt8;
  int8_t *scores = need(malloc(bytes));
  int32_t *classes = need(malloc(sizeof(int32_t) * PIXELS));
  if (TfLiteTensorType(output) == kTfLiteInt32) {
    if (bytes != sizeof(int32_t) * PIXELS || TfLiteTensorCopyToBuffer(output, classes, bytes) != kTfLiteOk)
      fail("the class map has another size than model.h says");
  } else {
    if (TfLiteTensorCopyToBuffer(output, scores, bytes) != kTfLiteOk) fail("cannot read the output");
    for (size_t i = 0; !is_signed && i < bytes; i++) scores[i] = (int8_t)(scores[i] ^ -128);
    if (DENSE && class_map(scores, TfLiteTensorDim(output, 1), TfLiteTensorDim(output, 2), CLASSES, SIZES, SIZE_COUNT, classes))
      fail("out of memory");
  }
  const double finished = now_ms();
  if (DENSE)
    write_classes(classes, argv[2]);
  else
    print_best(scores, TfLiteTensorQuantizationParams(output), is_signed);
  free(scores);
  free(classes);
#endif
  printf("pre-processing %.2f ms, model %.2f ms, post-processing %.2f ms\n", prepared - start, inferred - prepared, finished - inferred);
  free(pixels);
  free(data);
  TfLiteInterpreterDelete(interpreter);
  if (delegate) TfLiteExternalDelegateDelete(delegate);
  TfLiteModelDelete(model);
  return 0;
}
