// A GPU that is played to llama.cpp: it takes every operation, holds no memory, and computes nothing. What its scheduler
// and allocator reserve for it is what they would for the real one, as far as a backend decides: PLAYED_API says which
// one's order of nodes and sizes of tensors are played. Built by bench/played_cards.py against llama.cpp's own sources,
// from which the order of Vulkan's nodes (order.inc) and of Metal's (its own files) are compiled.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "ggml-backend-impl.h"
#include "ggml-impl.h"
#include "ggml.h"

#define VK_LOG_DEBUG(text)
struct vk_device_settings {
    bool disable_graph_optimize = false;
};
struct ggml_backend_vk_context {
    vk_device_settings * device;
};
static int ggml_vk_unary_mul_op_index(ggml_unary_op op) {
    switch (op) {
        case GGML_UNARY_OP_SILU:
        case GGML_UNARY_OP_SIGMOID:
        case GGML_UNARY_OP_GELU:
        case GGML_UNARY_OP_RELU:
        case GGML_UNARY_OP_SOFTPLUS: return 0;
        default: return -1;
    }
}
#include "order.inc"

extern "C" {
void ggml_graph_optimize(ggml_cgraph * graph);
void ggml_metal_fusion_add_alloc_deps(void * data, void (*add)(void *, ggml_tensor *, ggml_tensor *), ggml_cgraph * graph);
struct played_buffer_id {
    void * metal;
    size_t offset;
};
played_buffer_id ggml_metal_buffer_get_id(void *, const ggml_tensor *) { return {nullptr, 0}; }
}

static std::string api() {
    const char * told = getenv("PLAYED_API");
    return told ? told : "cuda";
}
static size_t whole(size_t size, size_t step) { return (size + step - 1) / step * step; }

static bool one_cache(const ggml_tensor * k, const ggml_tensor * v) {
    return v->view_src && (v->view_src == k || (v->view_src == k->view_src && v->view_offs == k->view_offs));
}

// What CUDA lays behind the result of fused attention: copies of the cache in F16.
static size_t cuda_attention(const ggml_tensor * node, size_t size) {
    const ggml_tensor *k = node->src[1], *v = node->src[2];
    if (k->type != GGML_TYPE_F16) size = whole(size, 128) + 2 * ggml_nelements(k);
    if (v->type != GGML_TYPE_F16 && !one_cache(k, v)) size = whole(size, 128) + 2 * ggml_nelements(v);
    return size;
}

// What Metal lays behind it: padding, parts that are masked, results of groups of threads, copies of the cache in F16.
static size_t metal_attention(const ggml_tensor * node, size_t size) {
    const ggml_tensor *q = node->src[0], *k = node->src[1], *v = node->src[2], *mask = node->src[3];
    const bool copied = q->ne[1] >= 32 && ggml_is_quantized(k->type), same = one_cache(k, v);
    const size_t row_k = copied ? 2 * k->ne[0] : k->nb[1], row_v = copied ? 2 * (same ? k : v)->ne[0] : v->nb[1];
    size += 64 * (row_k * k->ne[2] * k->ne[3] + row_v * v->ne[2] * v->ne[3]);
    if (mask) {
        const bool few = q->ne[1] < 20 && q->ne[0] % 32 == 0;
        const int64_t tokens = few ? 1 : 8, cells = few ? 32 : 64;
        size += 128 * mask->ne[1] * mask->ne[2] * mask->ne[3];
        size += whole((q->ne[1] + tokens - 1) / tokens * ((mask->ne[0] + cells - 1) / cells) * mask->ne[2] * mask->ne[3], 32);
    }
    size += 4 * std::min<int64_t>(q->ne[1], 32) * q->ne[2] * q->ne[3] * 32 * (v->ne[0] + 2);
    return size + whole(2 * ggml_nelements(k), 16) + (same ? 0 : whole(2 * ggml_nelements(v), 16));
}

static size_t tensor_size(ggml_backend_buffer_type_t, const ggml_tensor * node) {
    size_t size = ggml_nbytes(node);
    if (api() == "cuda") {
        if (node->op == GGML_OP_FLASH_ATTN_EXT) size = cuda_attention(node, size);
        if (ggml_is_quantized(node->type) && node->ne[0] % 512) size += ggml_row_size(node->type, 512 - node->ne[0] % 512);
    }
    if (api() == "metal") {
        const int64_t experts = node->op == GGML_OP_MUL_MAT_ID ? node->src[0]->ne[2] : 0;
        if (experts) size += 4 * experts * (1 + node->src[2]->ne[1]) + 8 + 256 * sizeof(float);
        if (node->op == GGML_OP_ARGSORT || node->op == GGML_OP_CUMSUM) size *= 2;
        if (node->op == GGML_OP_TOP_K) size = 8 * ggml_nelements(node->src[0]);
        if (node->op == GGML_OP_FLASH_ATTN_EXT) size = metal_attention(node, size);
    }
    return size;
}

// PLAYED_CARDS says how many of them there are.
struct card {
    std::string name;
    ggml_backend_device device;
    ggml_backend_buffer_type memory;
};
static std::array<card, 16> cards;
static size_t card_count = 1;
static ggml_backend_reg registry;
static ggml_backend_buffer_type host_memory;
static card & card_of(ggml_backend_dev_t device) { return *(card *) device->context; }

static size_t card_bytes() {
    const char * told = getenv("PLAYED_MIB");
    return (told ? strtoull(told, nullptr, 10) : 1 << 20) << 20;
}
static void free_memory(ggml_backend_dev_t, size_t * free, size_t * total) { *free = *total = card_bytes(); }
static const char * memory_name(ggml_backend_buffer_type_t type) { return card_of(type->device).name.c_str(); }
static const char * host_name(ggml_backend_buffer_type_t) { return "PLAYED_Host"; }
static ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_i calls = {};
    calls.free_buffer = [](ggml_backend_buffer_t) {};
    calls.get_base = [](ggml_backend_buffer_t) { return (void *) 0x100000; };
    calls.init_tensor = [](ggml_backend_buffer_t, ggml_tensor *) { return GGML_STATUS_SUCCESS; };
    calls.memset_tensor = [](ggml_backend_buffer_t, ggml_tensor *, uint8_t, size_t, size_t) {};
    calls.set_tensor = [](ggml_backend_buffer_t, ggml_tensor *, const void *, size_t, size_t) {};
    calls.get_tensor = [](ggml_backend_buffer_t, const ggml_tensor *, void * data, size_t, size_t size) { memset(data, 0, size); };
    calls.clear = [](ggml_backend_buffer_t, uint8_t) {};
    return ggml_backend_buffer_init(type, calls, nullptr, size);
}

static void order(ggml_backend_t, ggml_cgraph * graph, ggml_backend_graph_optimize_params * params) {
    if (api() == "vulkan") {
        vk_device_settings settings;
        ggml_backend_vk_context context{&settings};
        ggml_backend backend = {};
        backend.context = &context;
        ggml_vk_graph_optimize(&backend, graph, params);
    }
    if (api() == "metal") {
        ggml_metal_fusion_add_alloc_deps(params->user_data, params->add_alloc_dep, graph);
        ggml_graph_optimize(graph);
    }
}
static ggml_guid guid = {'p', 'l', 'a', 'y', 'e', 'd'};
static ggml_backend_t start(ggml_backend_dev_t device, const char *) {
    auto * backend = new ggml_backend();
    backend->guid = &guid;
    backend->device = device;
    backend->iface.get_name = [](ggml_backend_t one) { return card_of(one->device).name.c_str(); };
    backend->iface.free = [](ggml_backend_t one) { delete one; };
    backend->iface.synchronize = [](ggml_backend_t) {};
    backend->iface.graph_compute = [](ggml_backend_t, ggml_cgraph *) { return GGML_STATUS_SUCCESS; };
    backend->iface.graph_optimize = order;
    backend->iface.event_record = [](ggml_backend_t, ggml_backend_event_t) {};
    backend->iface.event_wait = [](ggml_backend_t, ggml_backend_event_t) {};
    return backend;
}
static int64_t batch(const ggml_tensor * node) {
    switch (node->op) {
        case GGML_OP_GET_ROWS: return 0;
        case GGML_OP_MUL_MAT: return node->ne[1];
        case GGML_OP_MUL_MAT_ID:
        case GGML_OP_ROPE: return node->ne[2];
        default: return ggml_nrows(node);
    }
}
static bool offloads(ggml_backend_dev_t, const ggml_tensor * node) {
    const bool product = node->op == GGML_OP_MUL_MAT || node->op == GGML_OP_MUL_MAT_ID;
    return batch(node) >= 32 && (api() != "metal" || product);
}

extern "C" ggml_backend_reg_t ggml_backend_init() {
    const char * count = getenv("PLAYED_CARDS");
    card_count = std::min<size_t>(count ? strtoull(count, nullptr, 10) : 1, cards.size());
    host_memory = *ggml_backend_cpu_buffer_type();
    host_memory.iface.get_name = host_name;
    host_memory.device = &cards[0].device;
    for (size_t number = 0; number < card_count; number++) {
        card & one = cards[number];
        one.name = "PLAYED" + std::to_string(number);
        one.device.context = &one;
        one.device.reg = &registry;
        one.memory.device = &one.device;
        one.memory.iface.get_name = memory_name;
        one.memory.iface.alloc_buffer = allocate;
        one.memory.iface.get_alignment = [](ggml_backend_buffer_type_t) -> size_t { return api() == "cuda" ? 128 : api() == "metal" ? 32 : 16; };
        one.memory.iface.get_alloc_size = tensor_size;
        one.memory.iface.is_host = [](ggml_backend_buffer_type_t) { return false; };
        one.device.iface.get_name = [](ggml_backend_dev_t device) { return card_of(device).name.c_str(); };
        one.device.iface.get_description = [](ggml_backend_dev_t) { return "a card that is played"; };
        one.device.iface.get_memory = free_memory;
        one.device.iface.get_type = [](ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_GPU; };
        one.device.iface.get_props = [](ggml_backend_dev_t device, ggml_backend_dev_props * props) {
            memset(props, 0, sizeof *props);
            props->name = card_of(device).name.c_str();
            props->description = "a card that is played";
            props->type = GGML_BACKEND_DEVICE_TYPE_GPU;
            free_memory(device, &props->memory_free, &props->memory_total);
            props->caps = {true, true, false, true};
        };
        one.device.iface.init_backend = start;
        one.device.iface.get_buffer_type = [](ggml_backend_dev_t device) { return &card_of(device).memory; };
        one.device.iface.get_host_buffer_type = [](ggml_backend_dev_t) { return api() == "metal" ? nullptr : &host_memory; };
        one.device.iface.supports_op = [](ggml_backend_dev_t, const ggml_tensor *) { return true; };
        one.device.iface.supports_buft = [](ggml_backend_dev_t device, ggml_backend_buffer_type_t type) { return type == &card_of(device).memory; };
        one.device.iface.offload_op = offloads;
        one.device.iface.event_new = [](ggml_backend_dev_t device) { return new ggml_backend_event{device, nullptr}; };
        one.device.iface.event_free = [](ggml_backend_dev_t, ggml_backend_event_t event) { delete event; };
        one.device.iface.event_synchronize = [](ggml_backend_dev_t, ggml_backend_event_t) {};
    }
    registry.api_version = GGML_BACKEND_API_VERSION;
    registry.iface.get_name = [](ggml_backend_reg_t) { return "PLAYED"; };
    registry.iface.get_device_count = [](ggml_backend_reg_t) -> size_t { return card_count; };
    registry.iface.get_device = [](ggml_backend_reg_t, size_t number) { return &cards[number].device; };
    registry.iface.get_proc_address = [](ggml_backend_reg_t, const char *) -> void * { return nullptr; };
    return &registry;
}
