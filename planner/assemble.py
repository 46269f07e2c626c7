"""The plan as an artifact: an evaluated placement, its proof, and what lost to it."""

from __future__ import annotations

from costmodel.layouts import POLICIES
from costmodel.schema.plan import (
    Alternative,
    Certificate,
    Pipeline,
    Plan,
    PlanCluster,
    PlanConstraints,
    PlanLayer,
    Robustness,
)
from costmodel.schema.prediction import Prediction
from planner.evaluate import Evaluated, evaluate_plan
from planner.layer_policies import offload_shares
from planner.prediction import predict
from planner.tensors import place_tensors

UNCONSTRAINED = PlanConstraints()


def build_plan(
    evaluated: Evaluated,
    certificate: Certificate,
    assumptions: tuple[str, ...] = (),
    alternatives: tuple[Alternative, ...] = (),
    notes: tuple[str, ...] = (),
    constraints: PlanConstraints = UNCONSTRAINED,
    robust: Robustness | None = None,
) -> Plan:
    """Everything about one answer, complete enough to run and to re-price with nothing else."""
    problem, placement = evaluated.problem, evaluated.placement
    setting, cluster = problem.setting, problem.cluster
    kinds = setting.model.kinds
    shares = [offload_shares(evaluated.of_rank(rank).layers) for rank in range(placement.layout.pp)]
    layers = tuple(
        PlanLayer(
            index=index,
            kind=kinds[kind].name,
            stage=stage,
            recompute=POLICIES[policy].recompute,
            offload=float(shares[placement.stages.stage_to_rank[stage]][kind, policy]),
            offload_to=POLICIES[policy].offload_to,
            saved_dtype=POLICIES[policy].saved_dtype,
        )
        for index, (kind, stage, policy) in enumerate(
            zip(problem.kinds, placement.stage_of_layer, placement.policies, strict=True)
        )
    )
    schedule = evaluated.schedule
    return Plan(
        model=setting.model,
        cluster=PlanCluster(
            device=setting.device.name,
            num_devices=cluster.num_devices,
            groups=cluster.groups,
            spec=cluster,
            device_spec=setting.device,
            other_specs=tuple(other.device for other in problem.others),
        ),
        workload=setting.workload,
        runtime=setting.runtime.name,
        runtime_spec=setting.runtime,
        calibration=problem.calibration,
        layout=placement.layout,
        pipeline=Pipeline(
            schedule=schedule.name,
            num_stages=schedule.num_stages,
            stage_to_rank=schedule.stage_to_rank,
            layers_per_stage=placement.layers_per_stage * schedule.copies,
            passes=schedule.to_text(),
            copies=schedule.copies,
        ),
        layers=layers,
        tensors=place_tensors(setting, placement.layout),
        prediction=predict(evaluated, assumptions),
        certificate=certificate,
        alternatives=alternatives,
        notes=notes,
        constraints=constraints,
        robust=robust,
    )


def reprice(plan: Plan) -> Prediction:
    """Price a plan again from its own fields alone; equals ``plan.prediction`` exactly.

    Raises InvalidSpec for a layout or policy that the cost model does not price.
    """
    return predict(evaluate_plan(plan), plan.prediction.assumptions)
