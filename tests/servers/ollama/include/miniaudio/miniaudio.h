// Stands in for a header that the published Go module of Ollama leaves out: every audio file is refused.
#pragma once
#include <cstddef>
#include <cstdint>
typedef uint64_t ma_uint64;
typedef int ma_result;
enum { MA_SUCCESS = 0, MA_REFUSED = -1, ma_format_f32 = 5 };
struct ma_decoder_config {};
struct ma_decoder {};
static inline ma_decoder_config ma_decoder_config_init(int, int, int) { return {}; }
static inline ma_result ma_decoder_init_memory(const void *, size_t, ma_decoder_config *, ma_decoder *) { return MA_REFUSED; }
static inline ma_result ma_decoder_get_length_in_pcm_frames(ma_decoder *, ma_uint64 *) { return MA_REFUSED; }
static inline ma_result ma_decoder_read_pcm_frames(ma_decoder *, void *, ma_uint64, ma_uint64 *) { return MA_REFUSED; }
static inline ma_result ma_decoder_uninit(ma_decoder *) { return MA_SUCCESS; }
