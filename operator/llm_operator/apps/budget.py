"""Whether what comes with each request has room in the model's context, beside a question. Pure.

Tools of an MCP server, and of an OpenAPI document that lies elsewhere, are not known here, and not counted.
"""

from __future__ import annotations

from llm_app.agent_prompt import least_tokens
from llm_app.prompt import fixed_tokens, rendered_tokens
from llm_app.team import HandOver, Team
from llm_app.tools.offers import known_offers
from llm_operator.api.app import LLMAppSpec
from llm_operator.apps.configuration import prompt_of
from llm_operator.apps.teams import team_of


def too_long_for(context: int | None, spec: LLMAppSpec) -> str:
    """What is too long, and what to do; empty if there is room, or nobody knows how long the context is."""
    if context is None:
        return ""
    if team := team_of(spec, {}):
        return agent_too_long(context, spec, team)
    fixed, answer = fixed_tokens(prompt_of(spec.prompt)), spec.parameters.max_tokens
    if fixed + answer < context:
        return ""
    return (
        f"spec.prompt and its examples are about {fixed} tokens, spec.parameters.maxTokens is {answer}, and "
        f"maxModelLength of the LLMServing is {context}; shorten one of the first two, or raise the last"
    )


def agent_too_long(context: int, spec: LLMAppSpec, team: Team) -> str:
    own, answer = rendered_tokens(spec.prompt.system, spec.prompt.variables), spec.parameters.max_tokens
    offers = {tool.name: known_offers(tool) for tool in team.tools}
    kind = team.workflow.kind if team.workflow else None
    members = kind.agents if isinstance(kind, HandOver) else []
    for index, agent in enumerate(team.agents):
        others = [one for one in team.agents if one.name in members and one.name != agent.name]
        offered = [offer for name in agent.tools for offer in offers[name]]
        needed = own + least_tokens(agent, offered, others, context, answer)
        if needed >= context:
            return (
                f"spec.agents[{index}] {agent.name}: spec.prompt.system, its instructions, {len(offered)} tools with "
                f"their arguments, and what it is to write (spec.parameters.maxTokens is {answer}) are about {needed} "
                f"tokens, and maxModelLength of the LLMServing is {context}; shorten them, give it fewer tools, or "
                "raise the last"
            )
    return ""
