/* An external delegate for TFLite that rounds as the i.MX8M Plus NPU does: it takes uint8 depthwise convolutions and
 * requantizes them as XNNPACK does int8 ones, so that a file's uint8 outputs are its int8 outputs + 128. XNNPACK runs
 * the rest. The structures are the beginnings of those in TFLite's C API (tensorflow/lite/core/c). */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

enum { UINT8 = 3, DEPTHWISE = 4, SAME = 1, RELU6 = 3 };

struct Context;
typedef struct { int size; int data[]; } IntArray;
typedef struct {
  int type; void* data; IntArray* dims; float scale; int32_t zero_point; int allocation_type; size_t bytes;
  const void* rest[8];
} Tensor;
typedef struct { int padding, stride_w, stride_h, multiplier, activation, dilation_w, dilation_h; } Depthwise;
typedef struct { IntArray *inputs, *outputs, *intermediates, *temporaries; void *state, *options; } Node;
typedef struct { int size; Node nodes[]; } Kept;
typedef struct Registration {
  void* (*init)(struct Context*, const char*, size_t); void (*free)(struct Context*, void*);
  void* prepare; int (*invoke)(struct Context*, Node*); void* profiling; int32_t code; const char* name; int version;
  void* rest[8];
} Registration;
typedef struct Delegate { void* data; int (*prepare)(struct Context*, struct Delegate*); void* copies[3];
  int64_t flags; void* builder; } Delegate;
typedef struct { Delegate* delegate; IntArray* nodes; } Part;
typedef struct Context {
  size_t tensors_size; int (*plan)(struct Context*, IntArray**); Tensor* tensors; void *impl, *resize, *report, *add;
  int (*node)(struct Context*, int, Node**, Registration**);
  int (*replace)(struct Context*, Registration, const IntArray*, Delegate*);
} Context;

static int before(int in, int out, int kernel, int stride, int dilation, int padding) {
  int total = (out - 1) * stride + (kernel - 1) * dilation + 1 - in;
  return padding == SAME && total > 0 ? total / 2 : 0;
}

static void convolve(Context* context, const Node* node) {
  Tensor *x = &context->tensors[node->inputs->data[0]], *w = &context->tensors[node->inputs->data[1]];
  Tensor *y = &context->tensors[node->outputs->data[0]];
  const int32_t* bias = context->tensors[node->inputs->data[2]].data;
  const Depthwise* o = node->options;
  const uint8_t *in = x->data, *kernel = w->data;
  int *i = x->dims->data, *k = w->dims->data, *n = y->dims->data, channels = n[3];
  int top = before(i[1], n[1], k[1], o->stride_h, o->dilation_h, o->padding);
  int left = before(i[2], n[2], k[2], o->stride_w, o->dilation_w, o->padding);
  float multiplier = x->scale * w->scale / y->scale;
  float low = o->activation ? y->zero_point : 0, high = 255;
  if (o->activation == RELU6) high = fminf(high, rintf(6 / y->scale + y->zero_point));
  for (int row = 0; row < n[1]; row++)
    for (int column = 0; column < n[2]; column++)
      for (int c = 0; c < channels; c++) {
        int32_t sum = bias[c];
        for (int r = 0; r < k[1]; r++)
          for (int s = 0; s < k[2]; s++) {
            int v = row * o->stride_h - top + r * o->dilation_h, h = column * o->stride_w - left + s * o->dilation_w;
            if (v < 0 || v >= i[1] || h < 0 || h >= i[2]) continue;
            sum += (in[(v * i[2] + h) * channels + c] - x->zero_point) *
                   (kernel[(r * k[2] + s) * channels + c] - w->zero_point);
          }
        float real = rintf((float)sum * multiplier) + y->zero_point;
        ((uint8_t*)y->data)[(row * n[2] + column) * channels + c] = (uint8_t)fminf(fmaxf(real, low), high);
      }
}

static void* init(Context* context, const char* buffer, size_t length) {
  const IntArray* nodes = ((const Part*)buffer)->nodes;
  Kept* kept = malloc(sizeof(Kept) + sizeof(Node) * nodes->size);
  (void)length;
  kept->size = nodes->size;
  for (int i = 0; i < nodes->size; i++) {
    Node* node;
    Registration* kernel;
    context->node(context, nodes->data[i], &node, &kernel);  /* forbidden later */
    kept->nodes[i] = *node;
  }
  return kept;
}

static void release(Context* context, void* state) { (void)context; free(state); }

static int invoke(Context* context, Node* part) {
  const Kept* kept = part->state;
  for (int i = 0; i < kept->size; i++) convolve(context, &kept->nodes[i]);
  return 0;
}

static int prepare(Context* context, Delegate* delegate) {
  IntArray *plan, *taken;
  Registration kernel = {.init = init, .free = release, .invoke = invoke, .name = "NpuRounding", .version = 1};
  if (context->plan(context, &plan)) return 1;
  taken = malloc(sizeof(int) * (plan->size + 1));
  taken->size = 0;
  for (int i = 0; i < plan->size; i++) {
    Node* node;
    Registration* found;
    if (context->node(context, plan->data[i], &node, &found)) return 1;
    if (found->code == DEPTHWISE && context->tensors[node->inputs->data[0]].type == UINT8)
      taken->data[taken->size++] = plan->data[i];
  }
  int failed = context->replace(context, kernel, taken, delegate);
  free(taken);
  return failed;
}

Delegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count, void (*report)(const char*)) {
  Delegate* made = calloc(1, sizeof *made);
  (void)keys, (void)values, (void)count, (void)report;
  made->prepare = prepare;
  return made;
}

void tflite_plugin_destroy_delegate(Delegate* delegate) { free(delegate); }
