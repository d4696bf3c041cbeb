"use strict";

const form = document.getElementById("race");
const answers = document.getElementById("answers");
const verdict = document.getElementById("verdict");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const customer = form.elements.customer.selectedOptions[0];
  const side = event.submitter?.value ?? "without";
  setRunning(true);
  say(`Racing for ${customer.text.trim()}'s payment, ${side} the lock …`);
  answers.replaceChildren();
  try {
    await post(customer.dataset.reset);
    const requests = Array.from({ length: form.elements.requests.valueAsNumber }, () =>
      post(customer.dataset[side]).then(show),
    );
    await Promise.all(requests);
    await refreshList();
    judge(customer, side);
  } catch (error) {
    say(`The race broke off: ${error.message}`, "wrong");
  } finally {
    setRunning(false);
  }
});

/* Send a POST. Return what was answered, by which process and how soon. */
async function post(url) {
  const started = performance.now();
  const response = await fetch(url, {
    method: "POST",
    headers: {
      Accept: "application/json",
      "X-CSRFToken": form.elements.csrfmiddlewaretoken.value,
    },
  });
  if (response.redirected || response.status === 403) {
    throw new Error("you are signed out. Reload this page and sign in.");
  }
  return {
    status: response.status,
    result: response.ok ? (await response.json()).result : reason(response),
    worker: response.headers.get("X-Worker"),
    elapsed: Math.round(performance.now() - started),
  };
}

function reason(response) {
  return response.status === 409 ? "somebody else is at it" : response.statusText || "unexpected";
}

function show({ status, result, worker, elapsed }) {
  const item = document.createElement("li");
  const badge = document.createElement("span");
  badge.className = `badge ${kind(status, result)}`;
  badge.textContent = status;
  const detail = document.createElement("small");
  detail.textContent = `process ${worker}, ${elapsed} ms`;
  item.append(badge, ` ${result} `, detail);
  answers.append(item);
}

/* Say how an answer looks: the first to collect is right, a later one is wrong. */
function kind(status, result) {
  if (status === 409) return "busy";
  if (result === "already collected") return "open";
  if (result !== "collected") return "wrong";
  return answers.querySelector(".collected") ? "wrong" : "collected";
}

/* Take the list of customers as the server has it now. */
async function refreshList() {
  const response = await fetch(form.dataset.list);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  document.getElementById("customers").replaceWith(page.getElementById("customers"));
}

/* Count the payments that were recorded, whatever the answers said. */
function judge(customer, side) {
  const cells = document.querySelectorAll(
    `[data-customer="${customer.value}"] [data-times-collected]`,
  );
  const times = Math.max(...Array.from(cells, (cell) => Number(cell.dataset.timesCollected)));
  const name = customer.text.trim();
  if (times > 1) {
    say(`Collected ${times} times ${side} the lock: ${name} paid ${times} times.`, "wrong");
  } else if (times === 1) {
    say(`Collected once ${side} the lock: ${name} paid what is owed.`, "collected");
  } else {
    say(`Not collected ${side} the lock.`, "wrong");
  }
}

function say(text, className = "") {
  verdict.textContent = text;
  verdict.className = className;
}

function setRunning(running) {
  form.querySelectorAll("button").forEach((button) => (button.disabled = running));
  answers.setAttribute("aria-busy", running);
}
