/* The external delegate's prototypes (tensorflow/lite/delegates/external/external_delegate.h). */
#ifndef EXTERNAL_DELEGATE_H
#define EXTERNAL_DELEGATE_H
#include "tensorflow/lite/c/c_api.h"

typedef struct TfLiteExternalDelegateOptions {
  const char* lib_path;
  int count;
  const char* keys[256];
  const char* values[256];
  TfLiteStatus (*insert)(struct TfLiteExternalDelegateOptions* options, const char* key, const char* value);
} TfLiteExternalDelegateOptions;

TfLiteExternalDelegateOptions TfLiteExternalDelegateOptionsDefault(const char* lib_path);
TfLiteDelegate* TfLiteExternalDelegateCreate(const TfLiteExternalDelegateOptions* options);
void TfLiteExternalDelegateDelete(TfLiteDelegate* delegate);
#endif
