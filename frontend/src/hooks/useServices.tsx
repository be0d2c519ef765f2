import { QueryClientProvider } from "@tanstack/react-query";
import { createContext, type ReactNode, useContext, useEffect } from "react";
import type { Services } from "../services";

const ServicesContext = createContext<Services | null>(null);

/** Hands the services down and keeps the live connection open for as long as it is mounted. */
export function ServicesProvider({ services, children }: { services: Services; children: ReactNode }) {
  const { stream, queryClient } = services;
  useEffect(() => {
    stream.start();
    const retry = () => {
      if (document.visibilityState === "visible") stream.retryNow();
    };
    window.addEventListener("online", retry);
    document.addEventListener("visibilitychange", retry);
    return () => {
      window.removeEventListener("online", retry);
      document.removeEventListener("visibilitychange", retry);
      stream.stop();
    };
  }, [stream]);
  return (
    <ServicesContext value={services}>
      <QueryClientProvider client={queryClient}>{children}</QueryClientProvider>
    </ServicesContext>
  );
}

export function useServices(): Services {
  const services = useContext(ServicesContext);
  if (!services) throw new Error("useServices needs a ServicesProvider above it");
  return services;
}
