import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./app";
import { ServicesProvider } from "./hooks/useServices";
import { makeServices } from "./services";
import "./ui/tokens.css";
import "./ui/base.css";
import "./ui/shell.css";
import "./ui/parts.css";
import "./ui/screens.css";

const root = document.getElementById("root");
if (!root) throw new Error("index.html has no #root");
createRoot(root).render(
  <StrictMode>
    <ServicesProvider services={makeServices()}>
      <App />
    </ServicesProvider>
  </StrictMode>,
);
