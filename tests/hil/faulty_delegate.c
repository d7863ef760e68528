/* An external delegate for TFLite with which a test stages what a vendor's may do; option "fault":
 *   none    takes nothing and says nothing: the silent fallback
 *   hang, abort, oom    takes every node, computes y = x + c (a short c repeats), but fails so in a graph of two
 *                       tensors (no constant)
 * Option "kmsg": a file to which it writes, before it fails, what a driver's kernel part would.
 * The structures are the beginnings of those in TFLite's C API (tensorflow/lite/core/c/common.h), stable since 2.4. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct Context;
typedef struct { int size; int data[]; } IntArray;
typedef struct {
  int type; void* data; IntArray* dims; float scale; int32_t zero_point; int allocation_type; size_t bytes;
  const void* rest[8];
} Tensor;
typedef struct { void *init, *free, *prepare, *invoke, *profiling; int32_t builtin_code; const char* custom_name;
  int version; void* rest[8]; } Registration;
typedef struct Delegate { void* data; int (*prepare)(struct Context*, struct Delegate*); void* copies[3];
  int64_t flags; void* builder; } Delegate;
typedef struct Context {
  size_t tensors_size; int (*plan)(struct Context*, IntArray**); Tensor* tensors; void *impl, *resize;
  void (*report)(struct Context*, const char*, ...); void *add, *node;
  int (*replace)(struct Context*, Registration, const IntArray*, Delegate*);
} Context;

static char fault[16], kmsg[4096];

static int invoke(Context* context, void* node) {
  (void)node;
  if (context->tensors_size == 2) {
    FILE* log = fopen(kmsg, "a");
    if (log) {
      fputs("6,7,1000,-;galcore: loaded\n3,8,2000,-;galcore: [galcore] GPU[0] hang\n", log);
      fclose(log);
    }
    if (!strcmp(fault, "hang")) raise(SIGSTOP);
    if (!strcmp(fault, "abort")) abort();
    context->report(context, "gcvip: cannot allocate video memory");
    return 1;
  }
  const int8_t *x = context->tensors[0].data, *c = context->tensors[1].data;
  int8_t* y = context->tensors[2].data;
  for (size_t i = 0; i < context->tensors[2].bytes; i++) y[i] = (int8_t)(x[i] + c[i % context->tensors[1].bytes]);
  return 0;
}

static int prepare(Context* context, Delegate* delegate) {
  IntArray* plan;
  Registration kernel = {.invoke = (void*)invoke, .custom_name = "Faulty", .version = 1};
  if (!strcmp(fault, "none")) return 0;
  return context->plan(context, &plan) || context->replace(context, kernel, plan, delegate);
}

Delegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count, void (*report)(const char*)) {
  Delegate* made = calloc(1, sizeof *made);
  (void)report;
  for (size_t i = 0; i < count; i++)
    if (!strcmp(keys[i], "fault")) strncpy(fault, values[i], sizeof fault - 1);
    else if (!strcmp(keys[i], "kmsg")) strncpy(kmsg, values[i], sizeof kmsg - 1);
  made->prepare = prepare;
  return made;
}

void tflite_plugin_destroy_delegate(Delegate* delegate) { free(delegate); }
