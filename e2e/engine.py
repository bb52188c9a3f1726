"""llama.cpp's own server, from the wheel `xllamacpp`: python engine.py MODEL.gguf PORT SLOTS [embedding]"""

import signal
import sys

import xllamacpp


def main() -> None:
    model, port, slots = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    p = xllamacpp.CommonParams()
    p.model.path = model
    p.model_alias = {"engine-model"}
    p.hostnames = ["127.0.0.1"]
    p.port = port
    p.n_parallel = slots
    p.n_ctx = 2048 * slots
    p.kv_unified = False
    p.endpoint_slots = True
    p.endpoint_metrics = True
    p.endpoint_props = True
    p.n_threads_http = 8
    p.cpuparams.n_threads = 1
    p.cpuparams_batch.n_threads = 1
    p.cache_ram_mib = 64
    p.offline = True
    p.use_jinja = True
    if "embedding" in sys.argv:
        p.embedding = True
        p.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(p)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
