"""Agents as graphs of LangGraph, which keeps where a request stands while it waits for an approval.

Nothing else of the app knows LangGraph but ``sessions``: a graph takes a state of plain JSON and a ``Run``.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypedDict, cast

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, Send, interrupt

from llm_app import agent_prompt as prompts
from llm_app.agents.run import Run
from llm_app.prompt import Turn, inert
from llm_app.team import HandOver, Parallel, Router, Sequential, Supervisor
from llm_app.tools.base import Offer
from llm_app.tools.toolbox import Called
from llm_app.tracing import span, turn_of

FINISH = "FINISH"


class State(TypedDict, total=False):
    """``agent`` is who works, ``final`` whether the client gets its answer, ``direct`` that it answers at once."""

    conversation: list[Turn]
    reports: list[dict[str, str]]
    scratch: list[Turn]
    agent: str
    final: bool
    direct: bool
    call: dict[str, Any]
    steps: int
    turns: int
    over: bool
    answer: str


def fresh(conversation: list[Turn]) -> State:
    return {"conversation": conversation, "reports": [], "scratch": [], "agent": "", "final": False, "direct": False,
            "call": {}, "steps": 0, "turns": 0, "over": False, "answer": ""}  # fmt: skip


def others(state: State, run: Run) -> list[str]:
    """To whom the agent may hand the conversation over."""
    workflow = run.team.workflow
    if workflow is None or not isinstance(workflow.kind, HandOver) or state["turns"] >= run.team.limits.turns:
        return []
    return [name for name in workflow.kind.agents if name != state["agent"]]


async def offered(state: State, run: Run) -> list[tuple[str, Offer]]:
    return await run.toolbox.offers(run.agent(state["agent"]).tools)


async def decide(state: State, runtime: Runtime[Run]) -> dict[str, Any]:
    run = runtime.context
    agent = run.agent(state["agent"])
    answer = {"call": {"tool": "answer"}}
    if state["direct"] or run.reached():
        return answer
    offers = [one for _, one in await offered(state, run)]
    beside = others(state, run)
    if not offers and not beside:
        return answer
    if state["steps"] >= agent.steps:
        run.stop("steps")
        return answer
    asked = prompts.decide([one.name for one in offers], others=bool(beside))
    turns = run.sent(run.system(agent, offers, beside), cast(dict[str, Any], state), asked, run.decision_tokens)
    made = await run.decide(agent.name, turns, prompts.decision(offers, beside))
    if run.limit == "seconds":
        return answer
    if made and "agent" in made and made["agent"] not in beside:  # of a server that does not keep to the expression
        made = None
    return {"call": made or {"tool": ""}, "steps": state["steps"] + 1}


def decided(state: State) -> Literal["act", "answer", "__end__"]:
    call = state["call"]
    if call.get("tool") == "answer":
        return "answer"
    return "__end__" if "agent" in call else "act"


async def act(state: State, runtime: Runtime[Run]) -> dict[str, Any]:
    run, call = runtime.context, state["call"]
    agent = run.agent(state["agent"])
    found = next(((name, one) for name, one in await offered(state, run) if one.name == call.get("tool")), None)
    if found is None:
        run.figures.calls.labels("none", "invalid").inc()
        call = {"tool": "none", "arguments": {}}
        called = Called("Error: what you wrote is no call of a tool that you have.", "invalid")
    elif found[0] in agent.require_approval and not run.in_session:
        run.figures.calls.labels(found[0], "refused").inc()
        called = Called("Error: this call needs the user's approval, for which the request needs a session.", "refused")
    elif found[0] in agent.require_approval and not interrupt({"agent": agent.name, **call}):
        run.figures.calls.labels(found[0], "refused").inc()
        called = Called("Error: the user has refused this call.", "refused")
    else:
        called = await run.toolbox.call(*found, call.get("arguments") or {}, max(run.left, 0.01))
    told = run.called(agent.name, call, called)
    wrote = {"role": "assistant", "content": inert(json.dumps(call, ensure_ascii=False))}
    return {"scratch": [*state["scratch"], wrote, {"role": "user", "content": told}]}


async def answer(state: State, runtime: Runtime[Run]) -> dict[str, Any]:
    run = runtime.context
    agent = run.agent(state["agent"])
    said = run.system(agent, [], [])
    turns = run.sent(said, cast(dict[str, Any], state), prompts.ANSWER, run.config.parameters.max_tokens)
    text = await run.answer(agent.name, turns, final=state["final"])
    return {"answer": text, "reports": [*state["reports"], {"agent": agent.name, "text": text}]}


def in_turn(node: Callable[[State, Runtime[Run]], Awaitable[dict[str, Any]]]) -> Any:
    """The same, as a part of the agent's turn in the trace."""

    async def traced(state: State, runtime: Runtime[Run]) -> dict[str, Any]:
        with runtime.context.within():
            return await node(state, runtime)

    return traced


def agent_graph() -> Any:
    made = StateGraph(State, context_schema=Run)
    made.add_node("decide", in_turn(decide))
    made.add_node("act", in_turn(act))
    made.add_node("answer", in_turn(answer))
    made.add_edge(START, "decide")
    made.add_conditional_edges("decide", decided)
    made.add_edge("act", "decide")
    made.add_edge("answer", END)
    return made.compile()


MEMBER = agent_graph()


async def member(state: State, runtime: Runtime[Run]) -> dict[str, Any]:
    """One of several that work at the same time."""
    with span(f"invoke_agent {state['agent']}", **turn_of(state["agent"])):
        made = await MEMBER.ainvoke(state, context=runtime.context)
    runtime.context.reports.append({"agent": state["agent"], "text": made["answer"]})
    return {}


def turn(state: State, run: Run, agent: str, *, final: bool, direct: bool = False) -> dict[str, Any]:
    run.figures.turns.labels(agent).inc()
    return {"agent": agent, "final": final, "direct": direct, "scratch": [], "steps": 0, "turns": state["turns"] + 1}


async def choose(state: State, runtime: Runtime[Run]) -> Command[Any]:
    """Who is next."""
    run = runtime.context
    team, done = run.team, state["turns"]
    if done and state["final"] and "agent" not in state["call"]:
        return Command(update={"over": True}, goto=END)
    kind = team.workflow.kind if team.workflow else None
    match kind:
        case None:
            made = turn(state, run, team.agents[0].name, final=True)
        case Sequential():
            made = turn(state, run, kind.agents[done], final=done == len(kind.agents) - 1)
        case Parallel():
            return parallel(state, run, kind)
        case Router():
            made = turn(state, run, await chosen(state, run, kind.agents) or kind.agents[0], final=True)
        case Supervisor():
            made = await supervised(state, run, kind)
        case HandOver():
            wanted = state["call"].get("agent") if done else kind.agents[0]
            made = turn(state, run, wanted or kind.agents[0], final=True)
    run.begin(made["agent"])
    return Command(update={**made, "call": {}}, goto="agent")


def parallel(state: State, run: Run, kind: Parallel) -> Command[Any]:
    if state["turns"]:
        made = turn(state, run, kind.combine, final=True)
        run.begin(kind.combine)
        return Command(update={**made, "call": {}, "reports": sorted_by(kind.agents, run.reports)}, goto="agent")
    sent = []
    for name in kind.agents:
        made = turn(state, run, name, final=False)
        sent.append(Send("member", {**state, **made}))
    return Command(update={"turns": 1}, goto=sent)


def sorted_by(names: list[str], reports: list[dict[str, str]]) -> list[dict[str, str]]:
    return sorted(reports, key=lambda one: names.index(one["agent"]))


async def supervised(state: State, run: Run, kind: Supervisor) -> dict[str, Any]:
    """When it never finishes, the limit does."""
    wanted: str | None = FINISH
    if state["turns"] >= run.team.limits.turns:
        run.stop("turns")
    elif not run.reached():
        wanted = await chosen(state, run, [*kind.agents, FINISH], kind.agent)
    if wanted is None or wanted == FINISH:
        return turn(state, run, kind.agent, final=True, direct=True)
    return turn(state, run, wanted, final=False)


async def chosen(state: State, run: Run, names: list[str], chooser: str = "") -> str | None:
    """By the model, of these names alone."""
    agents = [run.agent(name) for name in names if name != FINISH]
    if len(names) == 1:
        return names[0]
    own = run.agent(chooser).instructions if chooser else "Find out who is best for the user's request."
    listed = "\n".join(f"- {one.name}: {one.description}" for one in agents)
    end = f"\n{FINISH}: what the agents have said is enough to answer." if FINISH in names else ""
    said = f"{own}\nAgents:\n{listed}{end}"
    turns = run.sent(said, {**state, "scratch": []}, prompts.CHOOSE, run.decision_tokens)
    made = await run.decide(chooser or "router", turns, prompts.choice(names))
    wanted = (made or {}).get("agent")
    return wanted if wanted in names else None


def graph(saver: Any = None) -> Any:
    """Of any team, which stands in the run. ``saver``: where sessions are kept; then it answers those alone."""
    made = StateGraph(State, context_schema=Run)
    made.add_node("choose", choose, destinations=("agent", "member", END))
    made.add_node("agent", MEMBER)
    made.add_node("member", member)
    made.add_edge(START, "choose")
    made.add_edge("agent", "choose")
    made.add_edge("member", "choose")
    return made.compile(checkpointer=saver)
