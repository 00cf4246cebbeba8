"""A model whose adapters speak by the sampler that a job asks for."""

from __future__ import annotations

from cai import launchers
from cai.config import Engine, HardwareConfig, ModelConfig
from cai.errors import UserError
from cai.lm.load import LanguageModel, load_model
from cai.pipeline.stage import Job
from cai.sampling.vllm import VLLMSampler
from cai.sampling.vllm_client import VLLMClient
from cai.sampling.vllm_server import serve


def load_speaker(config: ModelConfig, job: Job) -> LanguageModel:
    """Load a base, and let a server sample for it where there is one.

    Raises:
        UserError: If the model can't be had, or the server not be used.
    """
    model = load_model(config, job.hardware)
    job.facts["sampler"] = "local"
    if job.sampler.engine is Engine.vllm:
        url = job.sampler.url or _own_server(config, job)
        client = VLLMClient(url, job.sampler.requests, job.sampler.timeout)
        model.sampler = VLLMSampler(model, job.sampler, client)
        job.facts["sampler"] = f"vllm {client.version}"
    return model


def _own_server(config: ModelConfig, job: Job) -> str:
    if _several(job.hardware):
        raise UserError(
            "sampler.python starts a server for one process, and there are several: start it "
            "yourself and give sampler.url"
        )
    return serve(config, job.sampler)


def _several(hardware: HardwareConfig) -> bool:
    return launchers.processes(hardware.devices, hardware.num_nodes).world_size > 1
