"""What may not stand in a recipe's [peft] and [trl], and why. All else in them passes through to those libraries."""

from __future__ import annotations

# Only what adds a matrix to a linear layer, or scales its rows, can be merged into the served file tensor by tensor.
# fmt: off
REFUSED_PEFT = dict.fromkeys(
    ("alora_invocation_tokens", "arrow_config", "auto_mapping", "bias", "corda_config", "eva_config", "fan_in_fan_out",
     "inference_mode", "kasa_config", "layer_replication", "lora_bias", "lora_ga_config", "modules_to_save",
     "monteclora_config", "peft_type", "target_parameters", "task_type", "trainable_token_indices", "use_bdlora",
     "use_qalora", "velora_config"),
    "leave it out: what it trains cannot be merged into the served file",
)
# A run must stay resumable, repeatable and silent; and nothing is said in two places.
REFUSED_TRL = dict.fromkeys(
    ("activation_checkpointing", "assistant_only_loss", "auto_find_batch_size", "bf16", "chat_template_path",
     "completion_only_loss", "data_seed", "dataset_kwargs", "ddp_find_unused_parameters", "deepspeed", "disable_tqdm",
     "eos_token", "fp16", "fsdp", "greater_is_better", "ignore_data_skip", "load_best_model_at_end",
     "logging_steps", "loss_weights", "max_length", "metric_for_best_model", "model_init_kwargs", "output_dir",
     "pad_token", "push_to_hub", "remove_unused_columns", "restore_callback_states_from_checkpoint",
     "resume_from_checkpoint", "save_only_model", "save_strategy", "sync_ref_model", "trust_remote_code", "use_cpu"),
    "leave it out: the trainer sets it",
) | {
    "beta": "set [train] beta",
    "eval_steps": "set [train] save_steps: held-out rows are looked at when a checkpoint is kept",
    "eval_strategy": "set [train] patience",
    "gradient_accumulation_steps": "set [train] accumulate",
    "gradient_checkpointing": "set [train] gradient_checkpointing",
    "learning_rate": "set [train] learning_rate",
    "lr_scheduler_type": "set [train] scheduler",
    "max_grad_norm": "set [train] max_grad_norm",
    "max_steps": "set [train] max_steps",
    "num_train_epochs": "set [train] epochs",
    "optim": "set [train] optimizer",
    "packing": "set [train] packing",
    "padding_free": "set [train] padding_free",
    "per_device_train_batch_size": "set [train] batch",
    "report_to": "set HUIGAN_REPORT_TO: the environment says where things go",
    "save_steps": "set [train] save_steps",
    "seed": "set the top-level seed",
    "train_sampling_strategy": "set [train] group_by_length",
    "warmup_steps": "set [train] warmup_steps",
    "weight_decay": "set [train] weight_decay",
}
# fmt: on
