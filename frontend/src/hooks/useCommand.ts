import { type QueryKey, useMutation } from "@tanstack/react-query";
import { type ApiClient, ApiError } from "../api/client";
import type { Command } from "../api/commands";
import { isRecord } from "../json";
import { type RpcClient, RpcFailure } from "../live/rpcClient";
import { useServices } from "./useServices";

const METHOD_NOT_FOUND = -32601;

/** Runs a command on the live socket when it is open, else over REST; then reads `affects` again. */
export function useCommand<P extends object, R>(command: Command<P, R>, affects: QueryKey[]) {
  const { api, rpc, queryClient } = useServices();
  return useMutation<R, ApiError, P>({
    mutationFn: (params) => run(command, params, api, rpc),
    onSettled: () => Promise.all(affects.map((queryKey) => queryClient.invalidateQueries({ queryKey }))),
  });
}

async function run<P extends object, R>(
  command: Command<P, R>,
  params: P,
  api: ApiClient,
  rpc: RpcClient,
): Promise<R> {
  if (command.method !== null && rpc.isOpen) {
    try {
      return (await rpc.call(command.method, params, { timeoutMs: command.timeoutMs })) as R;
    } catch (error) {
      if (!(error instanceof RpcFailure)) throw error;
      // Nothing else is repeated over REST: a call that was sent may have run.
      if (error.code !== METHOD_NOT_FOUND) throw asApiError(error);
    }
  }
  return command.rest(api, params, command.timeoutMs);
}

function asApiError(failure: RpcFailure): ApiError {
  const data = isRecord(failure.data) ? failure.data : {};
  const code = typeof data.code === "string" ? data.code : String(failure.code);
  const requestId = typeof data.request_id === "string" ? data.request_id : "";
  const detail =
    failure.code === "disconnected"
      ? "The connection closed before the answer came. The call may have run: see Invocations."
      : failure.message;
  return new ApiError(0, code, "The call failed", detail, requestId);
}
