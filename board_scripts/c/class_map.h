/* What a model's file may leave to the CPU: bilinear resizes of its logits, then the arg-max. */
#ifndef CLASS_MAP_H
#define CLASS_MAP_H

#include <stdint.h>

/* The class of each pixel (the last of `sizes`) from int8 logits (h, w, c), resized to each of `count` sizes [height,
 * width] in turn; without sizes the arg-max alone. A tie is the first class's. Equal to XNNPACK's kernels bit for bit if
 * it is compiled without fused multiply-adds (-ffp-contract=off). 0: done; -1: out of memory. */
int class_map(const int8_t *logits, int h, int w, int c, const int (*sizes)[2], int count, int32_t *classes);

#endif
