#include "class_map.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BITS = 11 }; /* of one axis's weights */

/* The lower neighbour of each new position of an axis, and the weight of the next one. */
static void axis(int before, int after, int *low, int32_t *weight) {
  const float ratio = (float)before / (float)after;
  for (int i = 0; i < after; i++) {
    float position = ((float)i + 0.5f) * ratio;
    position = position - 0.5f;
    position = fminf(fmaxf(position, 0.0f), (float)(before - 1));
    low[i] = (int)position;
    weight[i] = (int32_t)rintf((position - (float)low[i]) * (float)(1 << BITS));
  }
}

static int8_t *resized(const int8_t *in, int h, int w, int c, int height, int width) {
  int8_t *out = malloc((size_t)height * (size_t)width * (size_t)c);
  int *low = malloc(sizeof(int) * (size_t)(height + width));
  int32_t *weight = malloc(sizeof(int32_t) * (size_t)(height + width));
  if (!out || !low || !weight) {
    free(out);
    out = NULL;
    goto done;
  }
  axis(h, height, low, weight);
  axis(w, width, low + height, weight + height);
  for (int y = 0; y < height; y++) {
    const int8_t *top = in + (size_t)low[y] * (size_t)w * (size_t)c;
    const int8_t *bottom = low[y] + 1 < h ? top + (size_t)w * (size_t)c : top;
    for (int x = 0; x < width; x++) {
      const int left = low[height + x], right = left + 1 < w ? left + 1 : left;
      const int32_t across = weight[height + x];
      for (int k = 0; k < c; k++) {
        const int32_t upper = top[left * c + k] * (1 << BITS) + (top[right * c + k] - top[left * c + k]) * across;
        const int32_t lower = bottom[left * c + k] * (1 << BITS) + (bottom[right * c + k] - bottom[left * c + k]) * across;
        const int32_t sum = upper * (1 << BITS) + (lower - upper) * weight[y] + (1 << (2 * BITS - 1));
        out[((size_t)y * (size_t)width + (size_t)x) * (size_t)c + (size_t)k] = (int8_t)(sum >> (2 * BITS));
      }
    }
  }
done:
  free(low);
  free(weight);
  return out;
}

int class_map(const int8_t *logits, int h, int w, int c, const int (*sizes)[2], int count, int32_t *classes) {
  int8_t *made = NULL;
  for (int i = 0; i < count; i++) {
    int8_t *next = resized(made ? made : logits, h, w, c, sizes[i][0], sizes[i][1]);
    free(made);
    if (!next) return -1;
    made = next;
    h = sizes[i][0];
    w = sizes[i][1];
  }
  const int8_t *pixel = made ? made : logits;
  for (int i = 0; i < h * w; i++, pixel += c) {
    int best = 0;
    for (int k = 1; k < c; k++)
      if (pixel[k] > pixel[best]) best = k;
    classes[i] = best;
  }
  free(made);
  return 0;
}
